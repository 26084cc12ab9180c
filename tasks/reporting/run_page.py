"""The page of a whole run in Prefect's UI: tags while it runs, a summary when it ends, the reason if it fails."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import Flow, State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from tasks.core.measurements import EstimateSection
from tasks.core.options import ReconstructOptions
from tasks.core.refs import GaussiansRef, Outputs, Publication, Ref, RunContext, SceneRef
from tasks.core.report.markdown import (
    RunSummary,
    StageLine,
    ended_markdown,
    failure_markdown,
    run_facts,
    summary_markdown,
)
from tasks.places.sources import capture_name
from tasks.places.workspace import open_workspace
from tasks.reporting.artifacts import PREVIEW_PICTURE, RunArtifacts, Shown
from tasks.reporting.progress import run_logger
from tasks.reporting.recording import current_recording, recording
from tasks.reporting.run_log import log_name
from tasks.running.settings import settings_in_use

RUN_LOG = "reconstruct"
IN_PROCESS = "in this process"
FROM_WORKSPACE = "from the workspace"


class RunPage:
    """The page of one run."""

    def __init__(self, capture: str, context: RunContext, artifacts: RunArtifacts | None) -> None:
        self._capture, self._context, self._artifacts = capture, context, artifacts
        self._store = open_workspace(context.workspace)
        self._started = time.monotonic()

    def show_result(
        self,
        outputs: Outputs,
        publication: Publication,
        estimate: EstimateSection | None = None,
    ) -> None:
        """Show the summary and the preview picture. If the server does not answer, the log says so."""
        if self._artifacts is None:
            return
        refs = {**outputs.by_stage, "publish": publication}
        preview = self._url(PREVIEW_PICTURE)
        summary = RunSummary(
            capture=self._capture,
            registered=outputs.scene.cameras,
            usable=None if outputs.photos is None else outputs.photos.usable,
            psnr_db=publication.psnr_db,
            ssim=publication.ssim,
            gmsd=publication.gmsd,
            detail=publication.detail,
            num_gaussians=publication.num_gaussians,
            sog_bytes=publication.sog_bytes,
            total_seconds=time.monotonic() - self._started,
            stages=self._stage_lines(refs, estimate),
            expected_seconds=None if estimate is None else estimate.seconds.total,
            degradations=publication.degradations,
            place=publication.place,
            page_url=_if_link(publication.page),
            report_url=_if_link(publication.report),
            preview_url=preview,
            log_urls=self._log_urls(),
        )
        self._show("summary", Shown("markdown", summary_markdown(summary), run_facts(summary)))
        if preview is not None:
            self._show("preview", Shown("image", preview, "The splat from its first view."))

    def show_failure(self, error: BaseException) -> None:
        """Show the error and the remedy."""
        recorded = current_recording()
        stage = None if recorded is None else recorded.failed or next(reversed(recorded.stages), None)
        text = failure_markdown(self._capture, stage, error, self._log_urls())
        self._show("summary", Shown("markdown", text, f"Failed: {error}"))

    def _show(self, what: str, shown: Shown) -> None:
        if self._artifacts is None:
            return
        try:
            self._artifacts.show(_key(self._capture, what), shown)
        except Exception as error:  # noqa: BLE001 - the run has ended, shown or not
            run_logger().warning("the %s of this run could not be shown (%s)", what, error)

    def _url(self, name: str) -> str | None:
        return self._store.run_file_url(self._context.run, name)

    def _log_urls(self) -> tuple[tuple[str, str], ...]:
        recorded = current_recording()
        stages = [RUN_LOG, *recorded.stages] if recorded else []
        urls = [(stage, self._url(log_name(stage))) for stage in dict.fromkeys(stages)]
        return tuple((stage, url) for stage, url in urls if url is not None)

    def _stage_lines(self, refs: dict[str, Ref], estimate: EstimateSection | None) -> tuple[StageLine, ...]:
        pools = self._pools()
        expected = {} if estimate is None else estimate.seconds.model_dump()
        return tuple(
            StageLine(
                stage,
                ref.seconds,
                ref.cost_usd,
                ref.peak_memory_bytes,
                FROM_WORKSPACE if ref.cached else pools.get(stage, IN_PROCESS) + _taken(ref),
                expected.get(stage),
            )
            for stage, ref in refs.items()
        )

    def _pools(self) -> dict[str, str]:
        """Return the work pools of the stages that ran as their own deployment."""
        stages = settings_in_use().dispatch
        if not stages or self._artifacts is None:
            return {}
        try:
            parent = FlowRunFilterParentFlowRunId(any_=[self._artifacts.flow_run_id])
            runs = get_client(sync_client=True).read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
        except Exception as error:  # noqa: BLE001 - the run has ended well, whether or not this is known
            run_logger().warning("the server did not answer where the stages ran (%s)", error)
            return dict.fromkeys(stages, "its own deployment")
        return {stage: f"pool {run.work_pool_name}" for stage in stages for run in runs if stage in run.tags}


def _taken(ref: Ref) -> str:
    """Return words for the part of a computed stage that was already in the workspace."""
    if isinstance(ref, GaussiansRef) and ref.cells:
        kept = sum(cell.cached for cell in ref.cells)
        return f", in {len(ref.cells)} cells" + (f", {kept} of them {FROM_WORKSPACE}" if kept else "")
    return f", cameras {FROM_WORKSPACE}" if isinstance(ref, SceneRef) and ref.cameras_cached else ""


def _if_link(place: str) -> str | None:
    return place if place.startswith(("http://", "https://")) else None


@contextmanager
def run_page(capture: str, options: ReconstructOptions, context: RunContext) -> Iterator[RunPage]:
    """Tag the run, keep its log, and show the reason on its page if it fails."""
    with recording(RUN_LOG, context):
        page = RunPage(capture, context, RunArtifacts.of_this_run())
        _tag_run({"spaceport", options.preset, capture})
        try:
            yield page
        except Exception as error:
            page.show_failure(error)
            raise


def show_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Show on a run's page that it was cancelled or that its process died: a hook for on_cancellation and on_crashed.

    Prefect calls it in the worker if the run's own process is gone. Failures are shown by `run_page`, which knows the
    failed stage; the server learns of task runs a moment too late for this hook.
    """
    try:
        capture = capture_name(str(flow_run.parameters["photos"]))
        how = "cancelled" if state.is_cancelled() or state.is_cancelling() else "crashed"
        reason = state.message or ""
        shown = Shown("markdown", ended_markdown(capture, how, reason), f"{how.capitalize()}: {reason}")
        # A cancelled run's process mistakes its signal for a crash, and reports that before its worker corrects it.
        RunArtifacts(flow_run, flow_run.id, None, continued=True).show(_key(capture, "summary"), shown)
    except Exception as error:  # noqa: BLE001 - the run has ended as it has, shown or not
        run_logger().warning("the end of run %s could not be shown (%s)", flow_run.name, error)


def _key(capture: str, what: str) -> str:
    """Return the key of a run's artifact. A capture has one key: the Artifacts page shows its newest run first."""
    slug = re.sub(r"[^a-z0-9]+", "-", capture.lower()).strip("-") or "run"
    return f"{slug}-{what}"


def _tag_run(tags: set[str]) -> None:
    run = FlowRunContext.get()
    if run is None or run.flow_run is None:
        return
    try:
        get_client(sync_client=True).update_flow_run(run.flow_run.id, tags=sorted({*run.flow_run.tags, *tags}))
    except Exception as error:  # noqa: BLE001 - tags are for finding a run again
        run_logger().warning("this run could not be tagged (%s)", error)
