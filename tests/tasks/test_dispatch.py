"""A stage in a run of its own: which run is met again, what counts as killed, and how an end comes through."""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import Abort, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Running, Scheduled, State

from tasks.core.errors import OutOfMemoryError, RegistrationError, StageCrashedError, StageError, StageHungError
from tasks.core.measurements import SfmSection
from tasks.core.refs import RunContext, SceneRef
from tasks.core.stage_code import StageCode
from tasks.core.training.options import TrainOptions
from tasks.places.workspace import open_workspace
from tasks.running import dispatch
from tasks.running.retries import stage_task
from tasks.running.stage import Stage

CONTEXT = RunContext(workspace="/workspace", run="fox-1")
SCENE = SceneRef(uri="/scene", digest="a", capture="fox", cameras=8, points=100)
OPTIONS = TrainOptions(max_gaussians=4000)
KILL = "Process for flow run exited with status code: -9"


class Server:
    """In place of the Prefect server: runs by idempotency key, which end as `ends` says."""

    def __init__(self, patch: pytest.MonkeyPatch, ends: Callable[[dict[str, Any]], State[Any]]) -> None:
        self.made: dict[str, FlowRun] = {}
        self.parameters: list[dict[str, Any]] = []
        self.job_variables: list[Any] = []
        self._ends = ends
        patch.setattr(dispatch, "run_deployment", self._run)
        patch.setattr(dispatch, "_wait", self._wait)

    def _run(self, name: str, *, parameters: dict[str, Any], idempotency_key: str, **rest: Any) -> FlowRun:
        if idempotency_key not in self.made:
            self.made[idempotency_key] = FlowRun(id=uuid4(), flow_id=uuid4(), name=rest["flow_run_name"])
            self.parameters.append(parameters)
            self.job_variables.append(rest["job_variables"])
        return self.made[idempotency_key]

    def _wait(self, stage: str, child_id: UUID, expected_seconds: float | None) -> FlowRun:
        [key] = [key for key, run in self.made.items() if run.id == child_id]
        state = self._ends(self.parameters[list(self.made).index(key)])
        self.made[key] = self.made[key].model_copy(update={"state": state, "state_type": state.type})
        return self.made[key]


def crashes_above(gaussians: int) -> Callable[[dict[str, Any]], State[Any]]:
    def end(parameters: dict[str, Any]) -> State[Any]:
        too_many = parameters["options"]["max_gaussians"] > gaussians
        return Crashed(message=KILL) if too_many else Completed()

    return end


def train(scene: SceneRef = SCENE, *changed: TrainOptions, context: RunContext = CONTEXT) -> None:
    """Ask for a training as its task does, once for each of these options; the last one's error is raised."""

    @stage_task("train")
    def train_gaussians(scene: SceneRef, options: TrainOptions, context: RunContext) -> None:
        for options_now in changed or (options,):
            dispatch.run_elsewhere("train", context, {"options": options_now})

    @flow
    def parent() -> None:
        train_gaussians.with_options(retries=0)(scene, OPTIONS, context)

    parent()


@pytest.mark.parametrize(
    ("message", "killed"),
    [
        (KILL, True),
        ("Flow run process exited with non-zero status code -9.", True),
        ("Container exited with exit code 137", True),
        ("OutOfMemoryError: Container killed due to memory usage", True),
        ("Killed by SIGKILL", True),
        ("ip-10-60-1-137 is gone", False),
        ("exited with status code: 1 on host node-9", False),
        ("Nothing was heard of this run for 137 s", False),
        ("exited with status code: 1370", False),
    ],
)
def test_what_counts_as_killed(message: str, killed: bool) -> None:
    state: State[Any] = Crashed(message=message)
    run = FlowRun(flow_id=uuid4(), state=state, state_type=state.type)
    assert dispatch._was_killed(run) is killed


@pytest.mark.usefixtures("prefect_server")
def test_two_kills_are_want_of_memory_and_fewer_gaussians_are_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_JOB_VARIABLES_AGAIN", '{"train": {"spot": false}}')
    server = Server(monkeypatch, crashes_above(2000))
    with pytest.raises(StageCrashedError, match="status code: -9"):
        train()
    monkeypatch.setattr(dispatch.current_run, "id", "the same run, started again", raising=False)
    server.made.clear()
    server.parameters.clear()
    server.job_variables.clear()
    for error in (StageCrashedError, OutOfMemoryError, OutOfMemoryError):
        with pytest.raises(error):
            train()
    assert len(server.made) == 2, "a budget that was too large twice is not tried a third time"
    train(SCENE, OPTIONS.model_copy(update={"max_gaussians": 2000}))
    assert [asked["options"]["max_gaussians"] for asked in server.parameters] == [4000, 4000, 2000]
    assert server.job_variables == [None, {"spot": False}, {"spot": False}]


def test_a_request_is_known_by_its_parameters() -> None:
    def digest(**changed: Any) -> str:
        return dispatch._digest({"scene": SCENE, "options": OPTIONS, "context": CONTEXT, "started_at": 1.5, **changed})

    assert digest(scene=SCENE.model_copy(update={"cached": True, "seconds": 3.0}), started_at=9.5) == digest()
    assert digest(scene=SCENE.model_copy(update={"digest": "b"})) != digest()
    assert digest(options=OPTIONS.model_copy(update={"max_gaussians": 2000})) != digest()
    assert digest(destination="/elsewhere") != digest()


def test_a_run_that_waits_long_asks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that waits a minute for a worker, and then works for an hour."""
    now = 0.0
    asked: list[float] = []
    waits, works, done = Scheduled(), Running(), Completed()

    class Client:
        def read_flow_run(self, run: UUID) -> FlowRun:
            asked.append(now)
            state = waits if now < 60 else works if now < 3660 else done
            return FlowRun(id=run, flow_id=run, state=state, state_id=state.id, state_type=state.type)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(dispatch, "get_client", lambda sync_client: nullcontext(Client()))
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    assert dispatch._wait("train", uuid4(), 360.0).state_type == StateType.COMPLETED
    assert len(asked) < 500, "one a second were 3,660"
    pauses = [after - before for before, after in pairwise(asked)]
    assert round(max(pauses), 6) == 10
    begun = {round(pause, 6) for moment, pause in zip(asked, pauses, strict=False) if 65 < moment < 80}
    assert begun == {1.0}, "a short stage is heard of at once, however long it waited"


def test_a_run_that_waits_for_a_worker_says_so_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the sixteenth cell of a training does in a pool with one place, for a day."""
    now, day = 0.0, 86400.0
    waits, done = Scheduled(), Completed()

    class Client:
        def read_flow_run(self, run: UUID) -> FlowRun:
            state = waits if now < day else done
            return FlowRun(id=run, flow_id=run, state=state, state_id=state.id, state_type=state.type)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(dispatch, "get_client", lambda sync_client: nullcontext(Client()))
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    dispatch._wait("cell", uuid4(), None)
    said = [record for record in caplog.records if "still waits for a worker" in record.message]
    assert len(said) == 10, "after 1 minute, 2 more, 4 more, …: 1,023 minutes are within a day, 2,047 are not"


@pytest.mark.parametrize("expected_seconds", [120.0, 3600.0, None])
def test_a_run_may_take_ten_times_what_was_expected_and_at_least_an_hour(
    expected_seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waits for a day, and then works until it is cancelled or a week is over."""
    now, day = 0.0, 86400.0
    waits, works, done = Scheduled(), Running(), Completed()
    told: list[tuple[float, State[Any]]] = []

    class Client:
        def read_flow_run(self, run: UUID) -> FlowRun:
            state = waits if now < day else works if now < 8 * day else done
            if told:
                state = told[-1][1] if now < told[-1][0] + 30 else Cancelled(message="by its worker")
            return FlowRun(id=run, flow_id=run, name="hot-oak", state=state, state_id=state.id, state_type=state.type)

        def set_flow_run_state(self, run: UUID, state: State[Any]) -> None:
            told.append((now, state))

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(dispatch, "get_client", lambda sync_client: nullcontext(Client()))
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    if expected_seconds is None:
        assert dispatch._wait("train", uuid4(), None).state_type == StateType.COMPLETED
        return
    said = {120.0: "for 1 h, and 2 min were", 3600.0: "for 10 h, and 1 h were"}[expected_seconds]
    with pytest.raises(StageHungError, match=f"The train run 'hot-oak' was at work {said} expected"):
        dispatch._wait("train", uuid4(), expected_seconds)
    [(moment, state)] = told
    assert state.type == StateType.CANCELLING
    assert 0 <= moment - day - max(3600, 10 * expected_seconds) <= 20


@pytest.mark.usefixtures("prefect_server")
def test_what_is_expected_reaches_the_one_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []
    server = Server(monkeypatch, lambda _: Completed())
    wait = server._wait

    def noting(stage: str, child_id: UUID, expected_seconds: float | None) -> FlowRun:
        waited.append(expected_seconds)
        return wait(stage, child_id, expected_seconds)

    monkeypatch.setattr(dispatch, "_wait", noting)
    train(context=CONTEXT.model_copy(update={"expected_seconds": {"sfm": 7.0, "train": 70.0}}))
    train(SCENE.model_copy(update={"digest": "b"}))
    assert waited == [70.0, None]


def test_an_end_signal_comes_through_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(client: object) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(dispatch, "_own_state", gone)
    with pytest.raises(TerminationSignal), dispatch._cancelled_with_parent(uuid4()):
        raise TerminationSignal(signal.SIGTERM)


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_is_away_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server, asked = Server(monkeypatch, lambda _: Completed()), 0
    answer = dispatch.run_deployment

    def away_at_first(*given: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise httpx.ConnectError("a restart")
        return answer(*given, **named)

    monkeypatch.setattr(dispatch, "run_deployment", away_at_first)
    train()
    assert (asked, len(server.made)) == (2, 1)


def cancelled_after_its_child(while_waiting: Callable[[], None]) -> UUID:
    """A run that is being cancelled, whose stage's own run has ended first; its id once it has ended."""
    ids: list[UUID] = []

    @flow
    def parent() -> None:
        ids.append(UUID(str(flow_run.id)))
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(ids[0], Cancelling(), force=True)
        state: State[Any] = Cancelled()
        while_waiting()
        dispatch._raise_for(
            "train", FlowRun(flow_id=uuid4(), name="child", state=state, state_type=state.type), CONTEXT
        )

    try:
        parent()
    finally:
        assert len(ids) == 1
    return ids[0]


@pytest.mark.usefixtures("prefect_server")
def test_a_run_whose_child_was_cancelled_first_waits_for_its_own_end() -> None:
    sent: list[int] = []
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    # When the run has ended, Prefect sends the signal once more, to the handler of before.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sent.append(number))
    try:
        with pytest.raises(TerminationSignal):
            cancelled_after_its_child(timer.start)
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, before)
    assert sent == [signal.SIGTERM]


@pytest.mark.usefixtures("prefect_server")
def test_a_run_without_an_end_signal_is_marked_as_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "CANCEL_PATIENCE_SECONDS", 0.0)
    ids: list[UUID] = []
    with pytest.raises(Abort):
        cancelled_after_its_child(lambda: ids.append(UUID(str(flow_run.id))))
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(ids[0]).state_name == "Cancelled"


@pytest.mark.usefixtures("prefect_server")
def test_what_a_stages_own_run_fails_with_reaches_the_run_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The class and every character of the message, also where the message looks like an error's name."""
    context = RunContext(workspace=str(tmp_path), run="fox-1", dispatched=True)
    said = "3 of 40 photos\nStorageError: is in this text, which is the message's own."
    ids: list[UUID] = []

    @Stage("sfm", StageCode((), ()), SfmSection).task
    def fail(context: RunContext) -> SceneRef:
        ids.append(UUID(str(flow_run.id)))
        raise RegistrationError(said)

    with pytest.raises(RegistrationError):
        fail.as_flow()(context)
    failed: State[Any] = Failed(message="Flow run encountered an exception")
    child = FlowRun(id=ids[0], flow_id=uuid4(), name="child", state=failed, state_type=failed.type)
    with pytest.raises(RegistrationError) as raised:
        dispatch._raise_for("sfm", child, context)
    assert str(raised.value) == said
    assert isinstance(raised.value.__cause__, dispatch.StageRunFailed)
    other = child.model_copy(update={"id": uuid4()})
    with pytest.raises(StageError, match="The sfm run failed: Flow run encountered an exception"):
        dispatch._raise_for("sfm", other, context)


def test_a_kept_error_cannot_name_a_class_of_another_module(tmp_path: Path) -> None:
    context = RunContext(workspace=str(tmp_path), run="fox-1")
    failed: State[Any] = Failed(message="no reason known")
    child = FlowRun(id=uuid4(), flow_id=uuid4(), name="child", state=failed, state_type=failed.type)
    for kind in ("SystemExit", "__builtins__", "os.system"):
        kept = dispatch.KeptError(kind=kind, message="x").model_dump_json().encode()
        open_workspace(str(tmp_path)).write_run_file("fox-1", f"errors/{child.id}.json", kept)
        with pytest.raises(StageError, match="The sfm run failed"):
            dispatch._raise_for("sfm", child, context)
