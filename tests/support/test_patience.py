"""Waits of the tests: as long as anything moves, and no longer."""

import itertools
import sys
from types import SimpleNamespace

import psutil
import pytest

from tests.support import patience
from tests.support.patience import STALL_SECONDS, eventually, finished, work_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time as waits see it, which only their polls move."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return now


def test_a_wait_goes_on_for_as_long_as_something_moves(clock: list[float]) -> None:
    moves = itertools.count()
    eventually(lambda: clock[0] > 10 * STALL_SECONDS, "end", lambda: next(moves), poll_seconds=STALL_SECONDS / 2)
    assert next(moves) > 10


def test_a_wait_without_a_move_fails_and_says_what_was_last(clock: list[float]) -> None:
    with pytest.raises(AssertionError, match=r"no end: nothing has moved for 3\d\d s, the last was step 7"):
        eventually(lambda: False, "end", lambda: f"step {min(7, int(clock[0]))}", poll_seconds=1)
    assert clock[0] == pytest.approx(7 + STALL_SECONDS, abs=2)


def test_what_is_there_is_not_waited_for(clock: list[float]) -> None:
    assert eventually(lambda: 7, "seven") == 7
    assert clock[0] == 0


def test_a_command_is_followed_to_its_end() -> None:
    done = finished([sys.executable, "-c", "import sys; print('x' * 100_000); sys.exit('no')"])
    assert (len(done.stdout.strip()), done.stderr.strip(), done.returncode) == (100_000, "no", 1)


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.0)
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(AssertionError, match="nothing has moved"):
        finished([sys.executable, "-c", "import threading; threading.Event().wait()"])
    assert {child.pid for child in psutil.Process().children()} <= before


def test_work_counts_what_a_process_has_started() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    process = psutil.Popen([sys.executable, "-c", script])
    try:
        eventually(lambda: work_of(process.pid) >= 2, "work of a child of a child")
    finally:
        for each in (*process.children(recursive=True), process):
            each.kill()
        process.wait()
    assert work_of(process.pid) == 0
