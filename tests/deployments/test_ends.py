"""Ends of runs: each is handed out until it is settled, and neither memory nor questions grow with the history."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed, State

from deployments.runs import LOOK_BACK, OVERLAP, Ends


class Clock:
    """In place of `time`."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("deployments.runs.time", clock)
    return clock


class History:
    """Runs that ended, as the server hands them out."""

    def __init__(self) -> None:
        self.runs: list[FlowRun] = []
        self.asked: list[datetime] = []

    def read(self, since: datetime) -> list[FlowRun]:
        self.asked.append(since)
        return [run for run in self.runs if run.end_time is not None and run.end_time >= since]

    def end(self, at: datetime, state: State[object] | None = None, run: UUID | None = None) -> FlowRun:
        state = state or Completed()
        made = FlowRun(id=run or uuid4(), flow_id=UUID(int=0), state=state, state_type=state.type, end_time=at)
        self.runs.append(made)
        return made


def settled(ends: Ends) -> list[FlowRun]:
    due = list(ends.due())
    for run in due:
        ends.settle(run)
    return due


def test_every_end_is_handed_out_once_and_only_new_ones_are_asked_for() -> None:
    history, now = History(), datetime.now(UTC)
    old = [history.end(now - timedelta(hours=hours)) for hours in (30, 20, 2)]
    ends = Ends(history.read)
    assert settled(ends) == old
    assert history.asked[0] <= now - LOOK_BACK + timedelta(minutes=1)
    newer = history.end(now - timedelta(minutes=30))
    assert settled(ends) == [newer]
    assert history.asked[-1] == now - timedelta(hours=2) - OVERLAP
    assert settled(ends) == []
    assert history.asked[-1] == now - timedelta(minutes=30) - OVERLAP
    late = history.end(now - timedelta(minutes=35))
    assert settled(ends) == [late], "the server wrote it down after a younger one"


def test_memory_holds_the_overlap_alone() -> None:
    history, start = History(), datetime.now(UTC) - timedelta(days=2)
    ends = Ends(history.read)
    for minutes in range(0, 24 * 60, 5):
        history.end(start + timedelta(minutes=minutes))
        assert len(settled(ends)) == 1
    assert len(ends._settled) <= OVERLAP / timedelta(minutes=5) + 2
    assert not ends._waiting


def test_a_burst_is_not_asked_for_again_and_again(clock: Clock) -> None:
    """A thousand runs that end within minutes, and then none: each look used to read all of them."""
    history, moment = History(), datetime.now(UTC) - timedelta(hours=1)
    burst = [history.end(moment + timedelta(seconds=second / 10)) for second in range(1000)]
    ends = Ends(history.read)
    assert settled(ends) == burst
    for minutes, most in ((5, 1000), (9.9, 1000), (11, 1), (600, 1)):
        clock.seconds = 1000.0 + 60 * minutes
        assert settled(ends) == []
        assert len(history.read(history.asked[-1])) <= most
    newer = history.end(moment + timedelta(minutes=4))  # known late: the ends before it are not told again
    assert settled(ends) == [newer]
    assert settled(ends) == []
    newest = history.end(moment + timedelta(minutes=50))
    assert settled(ends) == [newest]
    assert settled(ends) == []
    assert history.asked[-1] == moment + timedelta(minutes=50) - OVERLAP
    assert {run.id for run in settled(Ends(history.read))} == {run.id for run in history.runs}, "none is missed"


def test_a_run_that_ends_again_is_a_new_end() -> None:
    history, now = History(), datetime.now(UTC)
    ends = Ends(history.read)
    crashed = history.end(now, Crashed())
    assert settled(ends) == [crashed]
    history.runs = []
    completed = history.end(now, Completed(), crashed.id)
    assert settled(ends) == [completed]


def test_what_is_put_off_comes_again_while_others_pass() -> None:
    history, now = History(), datetime.now(UTC)
    ends = Ends(history.read, first_retry_seconds=0.0)
    waits = history.end(now - timedelta(hours=1))
    ends.put_off(next(ends.due()))
    passes = history.end(now)
    for run in ends.due():
        (ends.put_off if run.id == waits.id else ends.settle)(run)
    assert [run.id for run in ends.due()] == [waits.id], "although the server is not asked for its time any more"
    assert history.asked[-1] == now - OVERLAP
    again = Ends(history.read)
    assert {run.id for run in again.due()} == {waits.id, passes.id}
    for run in (waits, passes):
        again.put_off(run)
    assert list(again.due()) == [], "not before a while"
