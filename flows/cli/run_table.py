"""What `spaceport runs` shows of a run beside its state: the stage in progress, and what came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import ArtifactSort
from pydantic import BaseModel, ValidationError

from flows.cli.flow_runs import ENDED, stage_runs
from tasks.core.errors import SpaceportError
from tasks.core.stages import STAGES
from tasks.photos import capture_name
from tasks.places.workspace import open_workspace
from tasks.running.run_folder import SPLAT_FOLDER, folder_of_run
from tasks.running.settings import Settings


@dataclass(frozen=True)
class Row:
    """One run."""

    id: str
    capture: str
    state: str
    stage: str  # in progress, with its share where known
    started: datetime | None
    took: timedelta | None  # so far, for a run that has not ended
    psnr_db: float | None
    page: str | None


class _Train(BaseModel):
    psnr_db: float | None = None


class _Report(BaseModel):
    """What is read of report.json."""

    train: _Train


def rows(client: SyncPrefectClient, runs: Sequence[FlowRun], settings: Settings) -> list[Row]:
    """What to show of these runs."""
    return [_row(client, run, settings) for run in runs]


def _row(client: SyncPrefectClient, run: FlowRun, settings: Settings) -> Row:
    psnr_db, page = _result(run, settings) if run.state_type == StateType.COMPLETED else (None, None)
    return Row(
        id=str(run.id)[:8],
        capture=run.name,
        state=run.state_name or "",
        stage="" if run.state_type in ENDED else stage_in_progress(client, run),
        started=run.start_time,
        took=None if run.start_time is None else run.estimated_run_time,
        psnr_db=psnr_db,
        page=page,
    )


def stage_in_progress(client: SyncPrefectClient, run: FlowRun) -> str:
    """The stage that the run is at, and its share as the stage reported it last, such as `train 45 %`."""
    at_work = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])))
    tasks = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), task_run_filter=at_work
    )
    # Beside the stages' tasks there is one that Prefect makes for every child run, with a name of its own invention.
    stage = next((task.name.split("-")[0] for task in tasks if task.name.startswith(STAGES)), None)
    if stage is None:
        return ""
    members = [run.id, *(child.id for child in stage_runs(client, run) if child.state_type not in ENDED)]
    share = _share(client, stage, members)
    return stage if share is None else f"{stage} {share:.0f} %"


def _share(client: SyncPrefectClient, stage: str, members: list[UUID]) -> float | None:
    """From the stage's progress artifact."""
    progress = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=members), type=ArtifactFilterType(any_=["progress"])
        ),
        sort=ArtifactSort.UPDATED_DESC,
    )
    newest: Any = next((entry.data for entry in progress if stage in (entry.key or stage)), None)
    return float(newest) if isinstance(newest, int | float) else None


def _result(run: FlowRun, settings: Settings) -> tuple[float | None, str | None]:
    """Held-out PSNR and page, where this machine can see them."""
    destination = run.parameters.get("destination")
    name = folder_of_run(capture_name(run.parameters["photos"]), str(run.id))
    try:
        if destination:
            report = (Path(destination) / "report.json").read_bytes() if "://" not in destination else None
            page = f"{destination}/index.html"
        else:
            store = open_workspace(settings.absolute_workspace)
            report = store.read_run_file(name, f"{SPLAT_FOLDER}/report.json")
            at = settings.pages_url and f"{settings.pages_url.rstrip('/')}/{name}"
            page = f"{at or store.run_uri(name)}/{SPLAT_FOLDER}/index.html"
    except (SpaceportError, OSError):
        return None, None  # kept in a place that this machine does not see
    if report is None:
        return None, page if destination else None
    try:
        return _Report.model_validate_json(report).train.psnr_db, page
    except ValidationError:
        return None, page
