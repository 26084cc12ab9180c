"""Run a stage as a run of its own deployment, in the work pool that the deployment names.

The child run has an idempotency key of parent run, stage, parameters and attempt. A parent that is restarted, or a task
that is retried, therefore finds the child that it started before: it waits for a child that still runs, and starts the
next attempt after one that died. Different parameters, such as fewer Gaussians, make a different child. Only the
child's final state comes back through Prefect: its output, or the error that it failed with, is in the workspace.

Parts of a stage, such as the cells of a training, are dispatched with their stage, each to a deployment of its own.
"""

import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import TaskRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import Abort, ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run as current_run
from prefect.states import Cancelled, Cancelling
from pydantic import BaseModel

from tasks.core import errors
from tasks.core.errors import (
    MissingPartError,
    OutOfMemoryError,
    SpaceportError,
    StageCancelledError,
    StageCrashedError,
    StageError,
    StageHungError,
)
from tasks.core.option_model import OptionModel
from tasks.core.refs import Ref, RunContext
from tasks.core.stages import stage_of
from tasks.core.words import rough_duration
from tasks.places.workspace import open_workspace
from tasks.reporting.progress import called, run_logger
from tasks.running.at_once import pause
from tasks.running.settings import settings_in_use

DEPLOY = "create it with `spaceport up` or `prefect deploy --all`, or take the stage out of SPACEPORT_DISPATCH"
POLL_SECONDS, MOST_POLL_SECONDS = 1.0, 10.0
SHARE_OF_WAIT = 0.05  # a stage's end is noticed after at most this share of its time
UNCLAIMED_SECONDS = 60.0  # after this a log line asks to look for a worker, and again after twice the time
SERVER_PATIENCE_SECONDS = 600.0  # how long a Prefect server may be gone, as in a restart or an upgrade
CANCEL_PATIENCE_SECONDS = 20.0  # a worker ends the process of a cancelled run within a few seconds
TOO_LONG = "This run took many times as long as was expected: it hangs, and is ended."
WITH_PARENT = "The run that asked for this was cancelled."
TIMES_EXPECTED, LEAST_LIMIT_SECONDS = 10.0, 3600.0  # an estimate may be three times too low, and the machine busy
KILLS = 2  # then lack of memory is more likely than a person or a lost machine
# As Prefect's runner and ECS say it: "… exited with non-zero status code -9.", "OutOfMemoryError: Container killed …".
ERRORS_FOLDER = "errors"  # in the run's folder: the errors of the stages' own runs
KILLED = re.compile(r"\b(?:status|exit) code:? (?:-9|137)(?!\d)|\bSIGKILL\b|\bOutOfMemory")

T = TypeVar("T")

# Prefect counts the children of a run without a lock, and gives each the next number.
_CREATING = threading.Lock()


class StageRunFailed(Exception):  # noqa: N818 - the cause of an error, never raised by itself
    """Marks an error of a child run, which has already had its own retries."""


class KeptError(BaseModel):
    """An error of tasks.core.errors, as it is passed between two processes.

    Prefect's `state.result()` could pass it in persisted results, but unpickles every record that says it is a pickle.
    Anyone with write access to the bucket could then run commands in the run that waits.
    """

    kind: str
    message: str


def keep_error(error: SpaceportError, context: RunContext) -> None:
    """Store this run's error for the run that waits for it. If that fails too, the log has a line about it."""
    kept = KeptError(kind=type(error).__name__, message=str(error))
    try:
        store = open_workspace(context.workspace)
        store.write_run_file(context.run, _error_file(current_run.id), kept.model_dump_json().encode())
    except Exception as failed:  # noqa: BLE001 - must not hide the error itself
        run_logger().warning("what this stage failed with could not be kept (%s)", failed)


def _error_file(run: object) -> str:
    return f"{ERRORS_FOLDER}/{run}.json"


def runs_elsewhere(stage: str, context: RunContext) -> bool:
    """Whether a run of its own deployment computes a stage, or a part of one."""
    return not context.dispatched and stage_of(stage) in settings_in_use().dispatch


def run_elsewhere(stage: str, context: RunContext, changed: dict[str, BaseModel] | None = None) -> None:
    """Run `<stage>/<stage>` with the current task's parameters and wait for its end.

    Args:
        stage: the word of a stage or of a part of one.
        context: of the parent run.
        changed: parameters that replace the task's. A caller that passes them can also pass smaller ones, so a second
            kill is then treated as lack of memory.

    Raises:
        OutOfMemoryError: it was killed for the second time, and `changed` was given.
        StageCrashedError: the process or its machine died; a retry starts the next attempt.
        StageCancelledError: a person cancelled the child run.
        StageHungError: it took many times as long as was expected, and was cancelled.
        MissingPartError: there is no such deployment.
        SpaceportError: the child run's own error, with the same class and message.
    """
    task_run = TaskRunContext.get()
    if task_run is None:
        raise RuntimeError("a stage can only be dispatched from within its task")
    name = called(stage)
    elsewhere = context.model_copy(update={"dispatched": True})
    given = {**task_run.parameters, **(changed or {}), "context": elsewhere}
    is_as_asked = all(task_run.parameters[name] == value for name, value in (changed or {}).items())
    attempt = killed = 0
    while True:
        attempt += 1
        child = _child(stage, context, given, attempt, is_again=attempt > 1 or not is_as_asked)
        has_ended_before = child.state is not None and child.state.is_final()
        if not has_ended_before:
            run_logger().info("%s runs as %r", name, child.name)
            with _cancelled_with_parent(child.id):
                child = _wait(stage, child.id, context.expected_seconds.get(stage))
        killed += _was_killed(child)
        if changed and killed >= KILLS:
            raise OutOfMemoryError(f"The {name} run was killed {killed} times, most likely for want of memory.")
        if not has_ended_before:
            _raise_for(stage, child, context)
            return


def _was_killed(child: FlowRun) -> bool:
    """Whether SIGKILL ended it: from a person, a lost machine or, if it recurs, the kernel for lack of memory."""
    message = (child.state.message or "") if child.state else ""
    return child.state_type == StateType.CRASHED and KILLED.search(message) is not None


def _child(stage: str, context: RunContext, given: dict[str, object], attempt: int, *, is_again: bool) -> FlowRun:
    """Return the child run of this attempt; it is created unless this run did so before a restart."""
    again = settings_in_use().job_variables_again.get(stage_of(stage))

    def create() -> object:
        with _CREATING:
            return run_deployment(
                f"{stage}/{stage}",
                parameters={name: _plain(value) for name, value in given.items()},
                flow_run_name=f"{context.run} {called(stage)}" + (f" ({attempt})" if attempt > 1 else ""),
                tags=["spaceport", stage, context.run],
                idempotency_key=f"{current_run.id}:{stage}:{_digest(given)}:{attempt}",
                timeout=0,
                job_variables=again if is_again else None,
            )

    try:
        child = _patiently(create)
    except ObjectNotFound as error:
        raise no_deployment(stage) from error
    assert isinstance(child, FlowRun)
    return child


def no_deployment(stage: str) -> MissingPartError:
    """Return the error for a dispatched stage without a deployment."""
    return MissingPartError(f"There is no deployment {stage}/{stage} on this Prefect server: {DEPLOY}.")


def _plain(value: object) -> object:
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _digest(given: dict[str, object]) -> str:
    """Digest a request: refs count by content; times and estimates differ after a restart and do not count."""
    asked: dict[str, object] = {}
    for name, value in given.items():
        if isinstance(value, Ref):
            asked[name] = value.digest
        elif isinstance(value, OptionModel):
            asked[name] = value.model_dump(mode="json")
        elif isinstance(value, str | int):
            asked[name] = value
        elif isinstance(value, tuple | list) and value:
            asked[name] = [each.digest for each in value if isinstance(each, Ref)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _patiently(ask: Callable[[], T]) -> T:
    """Return the server's answer. If the server is away, ask again for SERVER_PATIENCE_SECONDS."""
    deadline = time.monotonic() + SERVER_PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if not _is_passing(error) or time.monotonic() > deadline:
                raise
            pause(POLL_SECONDS, time.sleep)


def _wait(stage: str, child_id: UUID, expected_seconds: float | None) -> FlowRun:
    """Poll until the run has ended: every second at first, and less often the longer its state stays the same.

    Cancels a run that takes much longer than expected, and then raises StageHungError.
    """
    claimed_at = changed_at = time.monotonic()
    patience = UNCLAIMED_SECONDS
    state: UUID | None = None
    hung = False
    with get_client(sync_client=True) as client:
        while True:
            child = _patiently(lambda: client.read_flow_run(child_id))
            answered_at = time.monotonic()
            if child.state is not None and child.state.is_final():
                if hung and not child.state.is_completed():
                    raise _hung(stage, child, expected_seconds)
                return child
            if child.state_id != state:
                state, changed_at = child.state_id, answered_at
            waiting = child.state_type in (StateType.SCHEDULED, StateType.PENDING)
            if not waiting:
                claimed_at = answered_at
            elif answered_at - claimed_at > patience:
                claimed_at, patience = answered_at, 2 * patience  # a cell may wait for hours behind others
                run_logger().warning(
                    "%s still waits for a worker of pool %r; `spaceport status` shows the local ones",
                    called(stage),
                    child.work_pool_name,
                )
            at_work = child.state_type == StateType.RUNNING
            if at_work and answered_at - changed_at > _limit_seconds(expected_seconds):
                hung = True
                _patiently(lambda: client.set_flow_run_state(child_id, Cancelling(message=TOO_LONG)))
            pause(_pause_seconds(answered_at - changed_at), time.sleep)


def _limit_seconds(expected_seconds: float | None) -> float:
    """Return the time limit of a run; without an estimate there is none but that of the server's automations."""
    return math.inf if expected_seconds is None else max(LEAST_LIMIT_SECONDS, TIMES_EXPECTED * expected_seconds)


def _hung(stage: str, child: FlowRun, expected_seconds: float | None) -> StageHungError:
    expected = rough_duration(expected_seconds or 0.0)
    return StageHungError(
        f"The {called(stage)} run {child.name!r} was at work for {rough_duration(_limit_seconds(expected_seconds))}, "
        f"and {expected} were expected: it was cancelled, as one that hangs. Run the same again to continue from what "
        "it had stored; if the machine is as slow as that, leave the stage out of SPACEPORT_DISPATCH."
    )


def _pause_seconds(unchanged_seconds: float) -> float:
    """Return the pause before the next poll of a run whose state has been the same for so long."""
    return min(max(POLL_SECONDS, SHARE_OF_WAIT * unchanged_seconds), MOST_POLL_SECONDS)


def _is_passing(error: Exception) -> bool:
    """Whether the server may answer later: it is unreachable, busy or broken, but has not refused the request."""
    return not isinstance(error, PrefectHTTPStatusError) or error.response.status_code in {408, 429, *range(500, 600)}


@contextmanager
def _cancelled_with_parent(child_id: UUID) -> Iterator[None]:
    """Cancel the child if this run ends early because it was cancelled.

    A parent that dies for another reason leaves its child running: its output will be there when the parent restarts.
    """
    try:
        yield
    except BaseException:
        try:
            with get_client(sync_client=True) as client:
                if _own_state(client) in (StateType.CANCELLING, StateType.CANCELLED):
                    client.set_flow_run_state(child_id, Cancelling(message=WITH_PARENT))
        except Exception as error:  # noqa: BLE001 - must not hide the error that ends this run
            run_logger().warning("the server did not answer whether to cancel the stage's own run (%s)", error)
        raise


def _own_state(client: SyncPrefectClient) -> StateType | None:
    return client.read_flow_run(UUID(str(current_run.id))).state_type


def _await_own_end() -> None:
    """Wait for the signal that ends this run, if it is being cancelled together with its child.

    The child may end first. If this run then failed, Prefect would reject the state Failed of a run that is being
    cancelled, and the run would stay Cancelling. If no signal arrives, this marks the run as cancelled and ends it with
    Abort, after which Prefect's engine leaves the state unchanged.
    """
    deadline = time.monotonic() + CANCEL_PATIENCE_SECONDS
    with get_client(sync_client=True) as client:
        while _own_state(client) == StateType.CANCELLING:
            if time.monotonic() > deadline:
                client.set_flow_run_state(UUID(str(current_run.id)), Cancelled())
                raise Abort("The run was cancelled.")
            pause(POLL_SECONDS, time.sleep)


def _raise_for(stage: str, child: FlowRun, context: RunContext) -> None:
    """Raise the error that `run_elsewhere` documents, unless the run has completed."""
    state = child.state
    assert state is not None
    if state.is_completed():
        return
    if state.is_crashed():
        raise StageCrashedError(f"The {called(stage)} run {child.name!r} died: {state.message or 'no reason known'}")
    if state.is_cancelled():
        _await_own_end()
        raise StageCancelledError(f"The {called(stage)} run {child.name!r} was cancelled.")
    raise _as_raised(stage, child, context) from StageRunFailed(child.name)


def _as_raised(stage: str, child: FlowRun, context: RunContext) -> SpaceportError:
    """Return the error that the child run stored, or a StageError with its state's message if it stored none."""
    content = open_workspace(context.workspace).read_run_file(context.run, _error_file(child.id))
    if content is not None:
        kept = KeptError.model_validate_json(content)
        kind = getattr(errors, kept.kind, None)
        if isinstance(kind, type) and issubclass(kind, SpaceportError):
            return kind(kept.message)
    message = (child.state.message if child.state else None) or "no reason known"
    return StageError(f"The {called(stage)} run failed: {message}")
