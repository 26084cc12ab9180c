"""Runs on a Prefect server, for the terminal. A run is one of `reconstruct`; its stages may have runs of their own."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, Log, StateType
from prefect.client.schemas.sorting import FlowRunSort, LogSort
from prefect.states import Cancelled, Cancelling

from tasks.core.errors import InputError, ServerError
from tasks.core.stages import STAGES

FLOW = FlowFilter(name=FlowFilterName(any_=["reconstruct"]))
STATES = (  # Prefect's names for the states of a run
    "Scheduled",
    "Late",
    "AwaitingRetry",
    "AwaitingConcurrencySlot",
    "Pending",
    "Submitting",
    "InfrastructurePending",
    "Running",
    "Retrying",
    "Paused",
    "Suspended",
    "Cancelling",
    "Cancelled",
    "Completed",
    "Cached",
    "RolledBack",
    "Failed",
    "TimedOut",
    "Crashed",
)
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
LOOK_BACK = 200  # runs among which a short id or a name is looked for; also the most that the server gives at once
CANCEL_SECONDS = 120.0
LAST_SECONDS = 15.0
POLL_SECONDS = 1.0
LAST_LINES_SECONDS = 3.0  # a process hands its lines over every two
LATE_LOGS = timedelta(seconds=15)  # lines of another machine or process come late


def recent_runs(client: SyncPrefectClient, limit: int, states: Sequence[str] = ()) -> list[FlowRun]:
    """The newest runs first; states as a person writes them. Raises InputError for one that Prefect does not know."""
    names = [state_named(text) for text in states]
    wanted = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=names))) if names else None
    return client.read_flow_runs(
        flow_filter=FLOW, flow_run_filter=wanted, limit=limit, sort=FlowRunSort.EXPECTED_START_TIME_DESC
    )


def state_named(text: str) -> str:
    """`AwaitingRetry` for that, `awaitingretry`, `awaiting-retry` and the like. Raises InputError."""
    wanted = "".join(character for character in text.casefold() if character.isalpha())
    for name in STATES:
        if name.casefold() == wanted:
            return name
    raise InputError(f"There is no state {text!r}; the states are {', '.join(STATES)}.")


def runs_at_work(client: SyncPrefectClient) -> list[FlowRun]:
    """Every run that a process works on or is about to, of whatever flow, the runs of stages left out."""
    at_work = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(AT_WORK))))
    found = client.read_flow_runs(flow_run_filter=at_work, limit=LOOK_BACK)
    return [run for run in found if run.parent_task_run_id is None]


def has_begun(run: FlowRun) -> bool:
    """Whether the run's own work has started; a worker may have taken one that has not."""
    return run.state_type != StateType.PENDING


def find_run(client: SyncPrefectClient, text: str) -> FlowRun:
    """The run with that id, start of an id, or name. Raises InputError when it is none or several.

    Of several runs with the same name, the one that has not ended is meant.
    """
    recent = recent_runs(client, LOOK_BACK)
    found = [run for run in recent if str(run.id).startswith(text.lower()) or run.name == text]
    living = [run for run in found if run.state_type not in ENDED]
    if len(found) > 1 and len(living) == 1:
        return living[0]
    if len(found) > 1:
        ids = ", ".join(str(run.id)[:8] for run in found[:5])
        raise InputError(f"{len(found)} runs are called {text!r}; name one by its id: {ids}.")
    if not found:
        raise InputError(
            f"There is no run {text!r} among the last {LOOK_BACK}; `spaceport runs` lists them. Runs that ended long "
            "ago are forgotten (`spaceport up --keep-days`), their results are not."
        )
    return found[0]


def stage_runs(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """The runs that the run has made for its stages, oldest first."""
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    return client.read_flow_runs(flow_run_filter=children, limit=LOOK_BACK, sort=FlowRunSort.EXPECTED_START_TIME_ASC)


def cancel(client: SyncPrefectClient, run: FlowRun, *, wait: bool) -> FlowRun:
    """Cancel a run and the runs of its stages, and give the run as it is then.

    Raises InputError when it has ended already or belongs to a terminal, ServerError when it does not end in time.
    """
    if run.state_type in ENDED:
        raise InputError(f"{run.name} has ended already: {run.state_name}.")
    if run.deployment_id is None:
        raise InputError(f"{run.name} runs in somebody's terminal: press Ctrl-C there.")
    client.set_flow_run_state(run.id, Cancelling(message="Cancelled from the terminal."))
    for child in stage_runs(client, run):
        if child.state_type not in ENDED:
            client.set_flow_run_state(child.id, Cancelling(message="The run that asked for this was cancelled."))
    return _await_end(client, run) if wait else client.read_flow_run(run.id)


def cancel_for_good(client: SyncPrefectClient, run: FlowRun) -> None:
    """Cancel a run on a server that is about to be stopped: what has not ended soon is only marked as cancelled.

    Its process, should there still be one, is stopped with its worker.
    """
    try:
        _await_end(client, cancel(client, run, wait=False), LAST_SECONDS)
    except ServerError:
        for member in (run, *stage_runs(client, run)):
            if client.read_flow_run(member.id).state_type not in ENDED:
                client.set_flow_run_state(member.id, Cancelled(message="The server was taken down."), force=True)


def _await_end(client: SyncPrefectClient, run: FlowRun, patience_seconds: float = CANCEL_SECONDS) -> FlowRun:
    """Of the run and of all its stages: only then is the machine free again."""
    deadline = time.monotonic() + patience_seconds
    while True:
        family = [client.read_flow_run(run.id), *stage_runs(client, run)]
        if all(member.state_type in ENDED for member in family):
            return family[0]
        if time.monotonic() > deadline:
            waiting = ", ".join(member.name for member in family if member.state_type not in ENDED)
            raise ServerError(
                f"{waiting} did not end within {patience_seconds:.0f} s: `spaceport status` shows whether its worker "
                "lives; without one, the server ends it some minutes from now."
            )
        time.sleep(POLL_SECONDS)


def log_lines(client: SyncPrefectClient, run: FlowRun, *, follow: bool) -> Iterator[tuple[Log, str]]:
    """Lines of the run and of its stages' runs, each with where it is from; with `follow` until the run has ended."""
    seen: set[UUID] = set()
    since: datetime | None = None
    told_end = False
    while True:
        ended = client.read_flow_run(run.id).state_type in ENDED
        names = {run.id: "run"} | {child.id: _stage(child) for child in stage_runs(client, run)}
        for line in _logs(client, list(names), since):
            if line.id not in seen:
                seen.add(line.id)
                since = line.timestamp - LATE_LOGS
                yield line, names[line.flow_run_id] if line.flow_run_id else "run"
        if not follow or (ended and told_end):
            return
        told_end = ended
        time.sleep(LAST_LINES_SECONDS if ended else POLL_SECONDS)


def _logs(client: SyncPrefectClient, ids: list[UUID], since: datetime | None) -> Iterator[Log]:
    wanted = LogFilter(
        flow_run_id=LogFilterFlowRunId(any_=ids), timestamp=LogFilterTimestamp(after_=since) if since else None
    )
    offset = 0
    while page := client.read_logs(wanted, limit=LOOK_BACK, offset=offset, sort=LogSort.TIMESTAMP_ASC):
        yield from page
        offset += len(page)


def _stage(run: FlowRun) -> str:
    return next((stage for stage in STAGES if stage in run.tags), run.name)
