"""Runs of `reconstruct` on a Prefect server, for the terminal. The stages of a run may have runs of their own.

    <home>/terminal-runs/<flow run id>.json     record of a terminal run's process, which exists while the process lives

The records serve to mark runs as crashed whose process was killed. Runs of deployments need none: workers watch them.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import UUID

import psutil
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, FlowFilter, FlowRunFilter, LogFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, Log, State, StateType
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort, LogSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling, Crashed
from pydantic import ValidationError

from deployments.local.processes import Detached
from tasks.core.errors import InputError, ServerError, SpaceportError
from tasks.core.paths import private_folder, write_private
from tasks.core.stages import PARTS, STAGES
from tasks.places.result_files import PAGE_FILE, REPORT_DATA_FILE
from tasks.places.sources import capture_name
from tasks.places.workspace import open_workspace
from tasks.running.run_folder import SPLAT_FOLDER, folder_of_run
from tasks.running.settings import Settings

FLOW = FlowFilter(name={"any_": ["reconstruct"]})
STATE_NAMES = (  # Prefect's, of a run
    "Scheduled, Late, AwaitingRetry, AwaitingConcurrencySlot, Pending, Submitting, InfrastructurePending, Running, "
    "Retrying, Paused, Suspended, Cancelling, Cancelled, Completed, Cached, RolledBack, Failed, TimedOut, Crashed"
)
STATES = tuple(STATE_NAMES.split(", "))
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
LOOK_BACK = 200  # runs that are searched for a short id or a name; the server returns at most this many in one answer
CANCEL_SECONDS = 120.0
LAST_SECONDS = 15.0
POLL_SECONDS = 1.0
LAST_LINES_SECONDS = 3.0  # a process sends its lines every two seconds
LATE_LOGS = timedelta(seconds=15)  # lines from another machine or process arrive late
HEADINGS = ("id", "name", "state", "stage", "started", "took", "PSNR", "page")
GONE = "The process of this run died; what was finished is in the workspace."

P = ParamSpec("P")
R = TypeVar("R")


def recent_runs(client: SyncPrefectClient, limit: int, states: Sequence[str] = ()) -> list[FlowRun]:
    """Return the newest runs first. `states` may have any spelling; raises InputError for an unknown state."""
    names = [state_named(text) for text in states]
    wanted = FlowRunFilter(state={"name": {"any_": names}}) if names else None
    return client.read_flow_runs(
        flow_filter=FLOW, flow_run_filter=wanted, limit=limit, sort=FlowRunSort.EXPECTED_START_TIME_DESC
    )


def state_named(text: str) -> str:
    """Return Prefect's spelling, such as `AwaitingRetry` for `awaiting-retry`. Raises InputError."""
    wanted = "".join(character for character in text.casefold() if character.isalpha())
    for name in STATES:
        if name.casefold() == wanted:
            return name
    raise InputError(f"There is no state {text!r}; the states are {STATE_NAMES}.")


def runs_at_work(client: SyncPrefectClient) -> list[FlowRun]:
    """Return the runs of any flow that are running or about to start, without the runs of stages."""
    at_work = FlowRunFilter(state={"type": {"any_": list(AT_WORK)}})
    found = client.read_flow_runs(flow_run_filter=at_work, limit=LOOK_BACK)
    return [run for run in found if run.parent_task_run_id is None]


def has_begun(run: FlowRun) -> bool:
    """Whether the flow itself has started. A worker may already have claimed a run that has not."""
    return run.state_type != StateType.PENDING


def find_run(client: SyncPrefectClient, text: str) -> FlowRun:
    """Find a run by its id, the start of its id, or its name. Raises InputError if no run or several match.

    If several runs have the same name, the one that has not ended is returned.
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
    """Return the runs that this run started for its stages, oldest first."""
    children = FlowRunFilter(parent_flow_run_id={"any_": [run.id]})
    return client.read_flow_runs(flow_run_filter=children, limit=LOOK_BACK, sort=FlowRunSort.EXPECTED_START_TIME_ASC)


def cancel(client: SyncPrefectClient, run: FlowRun, *, wait: bool) -> FlowRun:
    """Cancel a run and the runs of its stages, and return the run's new state.

    Raises InputError if the run has already ended or belongs to a terminal, ServerError if it does not end in time.
    """
    if run.state_type in ENDED:
        raise InputError(f"{run.name} has ended already: {run.state_name}.")
    if run.deployment_id is None:
        raise InputError(f"{run.name} runs in a terminal: press Ctrl-C there.")
    client.set_flow_run_state(run.id, Cancelling(message="Cancelled from the terminal."))
    for child in stage_runs(client, run):
        if child.state_type not in ENDED:
            client.set_flow_run_state(child.id, Cancelling(message="The run that asked for this was cancelled."))
    return _await_end(client, run) if wait else client.read_flow_run(run.id)


def cancel_for_good(client: SyncPrefectClient, run: FlowRun) -> None:
    """Cancel a run on a server that is about to stop. Runs that do not end soon are only marked as cancelled.

    If such a run still has a process, it is stopped together with its worker.
    """
    try:
        _await_end(client, cancel(client, run, wait=False), LAST_SECONDS)
    except ServerError:
        for member in (run, *stage_runs(client, run)):
            if client.read_flow_run(member.id).state_type not in ENDED:
                client.set_flow_run_state(member.id, Cancelled(message="The server was taken down."), force=True)


def _await_end(client: SyncPrefectClient, run: FlowRun, patience_seconds: float = CANCEL_SECONDS) -> FlowRun:
    """Wait until the run and all its stages have ended, because only then is the machine free again."""
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
    """Yield log lines of the run and of its stages' runs, each with its origin; with `follow`, until the run ends."""
    seen: set[UUID] = set()
    since: datetime | None = None
    end_was_seen = False
    while True:
        ended = client.read_flow_run(run.id).state_type in ENDED
        names = {run.id: "run"} | {child.id: _stage(child) for child in stage_runs(client, run)}
        for line in _logs(client, list(names), since):
            if line.id not in seen:
                seen.add(line.id)
                since = line.timestamp - LATE_LOGS
                yield line, names[line.flow_run_id] if line.flow_run_id else "run"
        if not follow or (ended and end_was_seen):
            return
        end_was_seen = ended
        time.sleep(LAST_LINES_SECONDS if ended else POLL_SECONDS)


def _logs(client: SyncPrefectClient, ids: list[UUID], since: datetime | None) -> Iterator[Log]:
    wanted = LogFilter(flow_run_id={"any_": ids}, timestamp={"after_": since} if since else None)
    offset = 0
    while page := client.read_logs(wanted, limit=LOOK_BACK, offset=offset, sort=LogSort.TIMESTAMP_ASC):
        yield from page
        offset += len(page)


def _stage(run: FlowRun) -> str:
    return next((stage for stage in STAGES if stage in run.tags), run.name)


def row(client: SyncPrefectClient, run: FlowRun, settings: Settings) -> tuple[str, ...]:
    """Return the row of a run in `spaceport runs`, by HEADINGS. `took` is the time so far if the run has not ended."""
    quality, page = _result(run, settings) if run.state_type == StateType.COMPLETED else ("", "")
    return (
        str(run.id)[:8],
        run.name,
        run.state_name or "",
        "" if run.state_type in ENDED else stage_in_progress(client, run),
        "" if run.start_time is None else run.start_time.astimezone().strftime("%d %b %H:%M"),
        "" if run.start_time is None else _duration(run.estimated_run_time),
        quality,
        page,
    )


def stage_in_progress(client: SyncPrefectClient, run: FlowRun) -> str:
    """Return the current stage and the progress that it last reported, such as `train 45 %`."""
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id={"any_": [run.id]}),
        task_run_filter=TaskRunFilter(state={"type": {"any_": [StateType.RUNNING]}}),
    )
    # Prefect also creates a task run for every child run, with a generated name.
    names = [task.name for task in tasks]
    of_part = sorted(name for name in names if name.startswith(tuple(PARTS)))  # such as cell-03
    stage = next((name.split("-")[0] for name in names if name.startswith(STAGES)), next(iter(of_part), None))
    if stage is None:
        return ""
    # A stage's own run shows its progress in this run too.
    progress = ArtifactFilter(flow_run_id={"any_": [run.id]}, key={"any_": [f"progress-{stage}"]})
    shown = client.read_artifacts(artifact_filter=progress, sort=ArtifactSort.UPDATED_DESC, limit=1)
    return f"{stage} {shown[0].data:.0f} %" if shown else stage


def _result(run: FlowRun, settings: Settings) -> tuple[str, str]:
    """Return held-out PSNR and page of a run, as far as this machine can read them."""
    destination = run.parameters.get("destination")
    name = folder_of_run(capture_name(run.parameters["photos"]), str(run.id))
    try:
        if not destination:
            store = open_workspace(settings.absolute_workspace)
            at = f"{settings.pages_url.rstrip('/')}/{name}" if settings.pages_url else store.run_uri(name)
            page = f"{at}/{SPLAT_FOLDER}/{PAGE_FILE}"
            report = store.read_run_file(name, f"{SPLAT_FOLDER}/{REPORT_DATA_FILE}")
            if report is None:
                return "", ""
        elif "://" in destination:
            return "", f"{destination}/{PAGE_FILE}"
        else:
            page, report = f"{destination}/{PAGE_FILE}", (Path(destination) / REPORT_DATA_FILE).read_bytes()
    except (SpaceportError, OSError):
        return "", ""
    try:
        return f"{json.loads(report)['train']['psnr_db']:.2f} dB", page
    except (ValueError, LookupError, TypeError):  # not measured, or no report of ours
        return "", page


def _duration(duration: timedelta) -> str:
    minutes, seconds = divmod(round(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def known_here(flow: Flow[P, R], home: Path) -> Flow[P, R]:
    """Return the flow with hooks that keep a record of each run in this process while the run lasts."""

    def record(flow: Flow[P, R], flow_run: FlowRun, state: State) -> None:
        this = Detached.of(str(flow_run.id), os.getpid())
        folder = _records(home)
        private_folder(folder)
        write_private(folder / f"{flow_run.id}.json", this.model_dump_json().encode())

    def forget(flow: Flow[P, R], flow_run: FlowRun, state: State) -> None:
        (_records(home) / f"{flow_run.id}.json").unlink(missing_ok=True)

    return flow.with_options(
        on_running=[record], on_completion=[forget], on_failure=[forget], on_cancellation=[forget], on_crashed=[forget]
    )


def end_abandoned(client: SyncPrefectClient, home: Path) -> list[str]:
    """Mark runs in terminals as crashed when their process has died. Returns their names."""
    ended = []
    for id_, process, file in processes_of_runs(home):
        if process is not None:
            continue
        with suppress(ObjectNotFound):  # the run belongs to another server, or to a database that was moved aside
            run = client.read_flow_run(id_)
            if run.state is None or not run.state.is_final():
                client.set_flow_run_state(id_, Crashed(message=GONE), force=True)
                ended.append(run.name)
        file.unlink(missing_ok=True)
    return ended


def processes_of_runs(home: Path) -> Iterator[tuple[UUID, psutil.Process | None, Path]]:
    """Yield each run in this machine's terminals: its id, its process (None if it has ended) and its record."""
    for file in sorted(_records(home).glob("*.json")):
        try:
            recorded = Detached.model_validate_json(file.read_bytes())
            yield UUID(recorded.name), recorded.process(), file
        except (ValidationError, ValueError):
            file.unlink(missing_ok=True)
        except OSError:  # the run has just ended, or the disk failed for a moment
            continue


def _records(home: Path) -> Path:
    return home / "terminal-runs"
