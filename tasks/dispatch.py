"""A stage as a run of its own deployment, in whatever work pool that deployment names.

The child run is made for a key of (parent run, stage, attempt). A parent that is started again, or a task that is
retried, therefore meets the child it made before: one that still works is waited for, one that died is followed by the
next attempt. Nothing but the end of the run comes back: the output lies in the workspace.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import TaskRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run as current_run
from prefect.states import Cancelling
from pydantic import BaseModel

from tasks.core import errors
from tasks.core.errors import (
    MissingPartError,
    OutOfMemoryError,
    SpaceportError,
    StageCancelledError,
    StageCrashedError,
    StageError,
)
from tasks.core.refs import RunContext
from tasks.core.settings import Settings
from tasks.reporting import run_logger

POLL_SECONDS = 1.0
UNCLAIMED_SECONDS = 60.0  # after which somebody should look for a worker
SERVER_PATIENCE_SECONDS = 600.0  # how long a Prefect server may be gone, as in a restart or an upgrade


class StageRunFailed(Exception):  # noqa: N818 - the cause of an error, never raised by itself
    """Marks an error that a child run ended with, after retries of its own."""


def runs_elsewhere(stage: str, context: RunContext) -> bool:
    """Whether the stage is to be computed by a run of its own deployment."""
    return not context.dispatched and stage in Settings.from_environment().dispatch


def run_elsewhere(stage: str, context: RunContext, changed: dict[str, BaseModel] | None = None) -> None:
    """Run `<stage>/<stage>` with the current task's parameters and wait for its end.

    Args:
        stage: the stage's word.
        context: of the parent run.
        changed: parameters that take the place of the task's. A caller who gives them can give smaller ones too, so
            that being killed for the second time is taken for want of memory.

    Raises:
        OutOfMemoryError: it was killed for the second time, and `changed` was given.
        StageCrashedError: the process or its machine died; a retry makes the next attempt.
        StageCancelledError: a person cancelled the child run.
        MissingPartError: there is no such deployment.
        SpaceportError: what the child run failed with, of the same class and in the same words.
    """
    task_run = TaskRunContext.get()
    if task_run is None:
        raise RuntimeError("a stage can only be dispatched from within its task")
    elsewhere = context.model_copy(update={"dispatched": True})
    given = {**task_run.parameters, **(changed or {}), "context": elsewhere}
    child, killed_before = _start(stage, context, {name: _plain(value) for name, value in given.items()})
    run_logger().info("%s runs as %r", stage, child.name)
    with _cancelled_with_parent(child.id):
        child = _wait(stage, child.id)
    if changed and killed_before and _was_killed(child):
        raise OutOfMemoryError(f"The {stage} run was killed {killed_before + 1} times, most likely for want of memory.")
    _raise_for(stage, child)


def _was_killed(child: FlowRun) -> bool:
    """Whether SIGKILL ended it: a person, a lost machine or, when it happens again, the kernel short of memory."""
    message = (child.state.message or "") if child.state else ""
    return child.state_type == StateType.CRASHED and re.search(r"SIGKILL|-9\b|\b137\b|OutOfMemory", message) is not None


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _start(stage: str, context: RunContext, parameters: dict[str, object]) -> tuple[FlowRun, int]:
    """The first attempt's run that has not ended yet; made now, unless an earlier life of this run made it.

    And how many attempts before it were killed.
    """
    attempt = killed = 0
    again = json.loads(Settings.from_environment().job_variables_again).get(stage)
    while True:
        attempt += 1
        try:
            child = run_deployment(
                f"{stage}/{stage}",
                parameters=parameters,
                flow_run_name=f"{context.run} {stage}" + (f" ({attempt})" if attempt > 1 else ""),
                tags=["spaceport", stage, context.run],
                idempotency_key=f"{current_run.id}:{stage}:{attempt}",
                timeout=0,
                job_variables=again if attempt > 1 else None,
            )
        except ObjectNotFound as error:
            raise MissingPartError(
                f"There is no deployment {stage}/{stage} on this Prefect server: create it with `spaceport up` or "
                "`prefect deploy --all`, or take the stage out of SPACEPORT_DISPATCH."
            ) from error
        assert isinstance(child, FlowRun)
        if child.state is None or not child.state.is_final():
            return child, killed
        killed += _was_killed(child)


def _wait(stage: str, child_id: UUID) -> FlowRun:
    """Poll until the run has ended; a server that is away for a while is waited for."""
    answered_at = claimed_at = time.monotonic()
    with get_client(sync_client=True) as client:
        while True:
            try:
                child = client.read_flow_run(child_id)
            except (httpx.TransportError, PrefectHTTPStatusError) as error:
                if not _is_passing(error) or time.monotonic() - answered_at > SERVER_PATIENCE_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            answered_at = time.monotonic()
            if child.state is not None and child.state.is_final():
                return child
            waiting = child.state_type in (StateType.SCHEDULED, StateType.PENDING)
            if not waiting:
                claimed_at = answered_at
            elif answered_at - claimed_at > UNCLAIMED_SECONDS:
                claimed_at = answered_at
                run_logger().warning(
                    "%s still waits for a worker of pool %r; `spaceport status` shows the local ones",
                    stage,
                    child.work_pool_name,
                )
            time.sleep(POLL_SECONDS)


def _is_passing(error: Exception) -> bool:
    """Whether the server may answer again later: it is out of reach, busy or broken, but did not refuse us."""
    return not isinstance(error, PrefectHTTPStatusError) or error.response.status_code in {408, 429, *range(500, 600)}


@contextmanager
def _cancelled_with_parent(child_id: UUID) -> Iterator[None]:
    """Cancel the child when this run ends early because somebody cancelled it.

    A parent that dies for another reason leaves its child alone: the output will be there when the parent runs again.
    """
    try:
        yield
    except BaseException:
        with get_client(sync_client=True) as client:
            if _is_being_cancelled(client):
                client.set_flow_run_state(child_id, Cancelling(message="The run that asked for this was cancelled."))
        raise


def _is_being_cancelled(client: SyncPrefectClient) -> bool:
    state = client.read_flow_run(UUID(str(current_run.id))).state
    return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)


def _raise_for(stage: str, child: FlowRun) -> None:
    state = child.state
    assert state is not None
    if state.is_completed():
        return
    if state.is_crashed():
        raise StageCrashedError(f"The {stage} run {child.name!r} died: {state.message or 'no reason known'}")
    if state.is_cancelled():
        raise StageCancelledError(f"The {stage} run {child.name!r} was cancelled.")
    raise _as_raised(stage, state.message or "no reason known") from StageRunFailed(child.name)


def _as_raised(stage: str, message: str) -> SpaceportError:
    """The error that Prefect wrote into a state's message, as "…: RegistrationError: 12 of 40 photos …"."""
    found = re.search(r"\b(\w+Error): (.*)", message, re.DOTALL)
    kind = getattr(errors, found.group(1), None) if found else None
    if found and isinstance(kind, type) and issubclass(kind, SpaceportError):
        return kind(found.group(2))
    return StageError(f"The {stage} run failed: {message}")
