"""What a run shows in Prefect's UI and keeps in its folder, read back from a real server."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run

from tasks import recording
from tasks.artifacts import RunArtifacts, Shown
from tasks.background import BackgroundWriter
from tasks.core.errors import RegistrationError
from tasks.core.measurements import CurvePoint
from tasks.core.options import ReconstructOptions
from tasks.core.progress import Progress
from tasks.core.refs import GaussiansRef, PhotosRef, Publication, RunContext, SceneRef, SogRef
from tasks.core.training.trainer import EvaluatedView, TrainingStats
from tasks.reporting import announce, run_logger, stage_progress
from tasks.retries import stage_task
from tasks.run_page import run_page
from tasks.training_board import KEPT_ROWS, TrainingBoard

PAGES = "http://pages.test"


@pytest.fixture
def context(tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    monkeypatch.setenv("SPACEPORT_PAGES_URL", PAGES)
    return RunContext(workspace=str(tmp_path), run="flight-1")


def run_in_flow(body: Callable[[], Any]) -> UUID:
    """Run the body as a flow; the id of the run."""
    ids = []

    @flow(name="dashboard-test")
    def whole() -> None:
        ids.append(UUID(str(flow_run.id)))
        body()

    whole()
    return ids[0]


def artifacts_of(run: UUID) -> dict[str, Artifact]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])), limit=100
        )
    keys = [str(artifact.key) for artifact in found]
    assert len(keys) == len(set(keys)), f"an artifact was made twice: {keys}"
    return dict(zip(keys, found, strict=True))


def run_file(context: RunContext, name: str) -> bytes:
    return (Path(context.workspace) / "runs" / context.run / name).read_bytes()


def test_a_stage_shows_its_progress_and_keeps_its_log(context: RunContext) -> None:
    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        report = stage_progress("sfm")
        run_logger().info("looking for features")
        for done in range(201):
            report(Progress(done, 200, f"pair {done}"))
        return 7

    run = run_in_flow(lambda: stage(context))
    [artifact] = artifacts_of(run).values()
    assert (artifact.key, artifact.type, artifact.data) == ("progress-sfm", "progress", 100)
    assert artifact.description == "100 %, pair 200"
    assert artifact.task_run_id is not None

    lines = run_file(context, "logs/sfm.log").decode().splitlines()
    assert "INFO     looking for features" in lines[0]
    assert [line.split(" pair ")[1] for line in lines if "PROGRESS" in line] == [str(done) for done in range(201)]
    assert len(lines) == 202, "what the run's log says in few lines is not said twice"
    assert lines[0][:11].count("-") == 2
    assert lines[0].split()[0].endswith("Z")
    with get_client(sync_client=True) as client:
        sent = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])), limit=200)
    assert len([log for log in sent if "pair" in log.message]) <= 2, "the run's log in the UI is throttled"


def test_many_reports_are_few_updates(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Shown] = []
    monkeypatch.setattr(RunArtifacts, "show", lambda self, key, what: shown.append(what))
    monkeypatch.setattr(recording, "UPDATE_SECONDS", 0.5)

    @stage_task("train")
    def stage(context: RunContext) -> float:
        report, start = stage_progress("train"), time.monotonic()
        for done in range(1000):
            report(Progress(done, 1000))
            time.sleep(0.001)
        report(Progress(1000, 1000))
        return time.monotonic() - start

    seconds: list[float] = []
    run_in_flow(lambda: seconds.append(stage(context)))
    # One at the start, one for each half second, one at the end.
    assert 2 <= len(shown) <= 2 + seconds[0] / 0.5
    assert shown[-1].data == 100


def test_a_server_that_refuses_does_not_stop_a_stage(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: RunArtifacts, key: str, shown: Shown) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(RunArtifacts, "show", refuse)
    monkeypatch.setattr(recording, "UPDATE_SECONDS", 0.0)

    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        report = stage_progress("sfm")
        for done in range(50):
            report(Progress(done, 50))
            time.sleep(0.002)
        return 7

    results: list[int] = []
    run_in_flow(lambda: results.append(stage(context)))
    assert results == [7]
    log = run_file(context, "logs/sfm.log").decode()
    assert log.count("could not be updated (ConnectionError: nobody there)") == 1


def test_a_log_that_cannot_be_kept_does_not_stop_a_stage(context: RunContext) -> None:
    runs = Path(context.workspace) / "runs"
    runs.write_text("in the way")

    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        stage_progress("sfm")(Progress(1, 1))
        return 7

    results: list[int] = []
    run_in_flow(lambda: results.append(stage(context)))
    assert results == [7]
    assert runs.read_text() == "in the way"


def test_a_failed_stage_is_in_its_log_and_on_the_runs_page(context: RunContext) -> None:
    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        stage_progress("sfm")(Progress(1, 4, "matching"))
        raise RegistrationError("3 of 40 photos registered; need 24. Take photos that overlap.")

    runs: list[UUID] = []

    def body() -> None:
        runs.append(UUID(str(flow_run.id)))
        with run_page("North Field", ReconstructOptions(), context):
            stage(context)

    with pytest.raises(RegistrationError):
        run_in_flow(body)
    artifacts = artifacts_of(runs[0])
    text = str(artifacts["north-field-summary"].data)
    assert str(artifacts["north-field-summary"].description).startswith("Failed: 3 of 40 photos registered")
    assert text.startswith("# North Field: failed in sfm\n")
    assert "> 3 of 40 photos registered; need 24. Take photos that overlap." in text
    assert "What to do" in text
    assert f"[sfm]({PAGES}/flight-1/logs/sfm.log)" in text
    assert artifacts["progress-sfm"].data == 25
    assert "RegistrationError: 3 of 40 photos" in run_file(context, "logs/sfm.log").decode()
    assert "RegistrationError: 3 of 40 photos" in run_file(context, "logs/reconstruct.log").decode()
    with get_client(sync_client=True) as client:
        assert set(client.read_flow_run(runs[0]).tags) >= {"spaceport", "standard", "North Field"}


def test_another_attempt_continues_the_log_and_the_artifact(context: RunContext) -> None:
    attempts: list[int] = []

    @stage_task("photos")
    def stage(context: RunContext) -> int:
        attempts.append(1)
        stage_progress("photos")(Progress(len(attempts), 2, f"attempt {len(attempts)}"))
        if len(attempts) == 1:
            raise OSError("the network is gone")
        return 7

    quick = stage.with_options(retry_delay_seconds=0)
    [artifact] = artifacts_of(run_in_flow(lambda: quick(context))).values()
    assert artifact.data == 100
    log = run_file(context, "logs/photos.log").decode()
    assert log.index("attempt 1") < log.index("OSError: the network is gone") < log.index("attempt 2")


def test_a_stage_in_a_run_of_its_own_shows_itself_in_the_run_that_asked_for_it(context: RunContext) -> None:
    @stage_task("sfm")
    def stage(context: RunContext) -> None:
        report = stage_progress("sfm")
        report(Progress(1, 2))
        report(Progress(2, 2, "done"))

    children: list[UUID] = []

    @flow(name="sfm")
    def stage_flow() -> None:
        children.append(UUID(str(flow_run.id)))
        stage(context)

    def body() -> None:
        stage_flow()
        stage_flow()  # the next attempt, after the first one was killed

    parent = run_in_flow(body)
    for run in (parent, *children):
        assert [(artifact.data, artifact.description) for artifact in artifacts_of(run).values()] == [
            (100, "100 %, done")
        ]


def test_a_stage_from_the_workspace_says_so_in_its_name(context: RunContext) -> None:
    @stage_task("photos")
    def stage(context: RunContext) -> None:
        announce("photos", "38 photos, from the workspace")

    run = run_in_flow(lambda: stage(context))
    [artifact] = artifacts_of(run).values()
    assert (artifact.data, artifact.description) == (100, "100 %, 38 photos, from the workspace")

    def named(client: SyncPrefectClient) -> list[str]:
        in_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        return [task_run.name for task_run in client.read_task_runs(flow_run_filter=in_run)]

    # A task run's states reach the server as events, a moment later.
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while named(client) != ["photos (from the workspace)"]:
            assert time.monotonic() < deadline, named(client)
            time.sleep(0.1)


def test_training_shows_a_table_a_curve_and_a_held_out_view(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "UPDATE_SECONDS", 0.05)
    photo = np.full((60, 80, 3), 200, np.uint8)

    @stage_task("train")
    def stage(context: RunContext) -> None:
        board = TrainingBoard(context)
        for step in range(1, 1001):
            if step % 250 == 0:
                point = CurvePoint(step=step, seconds=step / 10, psnr_db=15 + step / 100)
                board.on_evaluation(EvaluatedView(point, "007.jpg", photo, np.full((60, 80, 3), 1.2, np.float32)))
            board.on_step(TrainingStats(step, 1000, 0.25, 5000 + step, step / 10, 20.5, (1000 - step) / 10))

    artifacts = artifacts_of(run_in_flow(lambda: stage(context)))
    assert {key: artifact.type for key, artifact in artifacts.items()} == {
        "training": "table",
        "training-curve": "image",
        "training-preview": "image",
    }
    rows = json.loads(str(artifacts["training"].data))
    assert len(rows) == KEPT_ROWS
    assert rows[0]["step"] == "1,000 of 1,000"
    assert rows[0]["Gaussians"] == "6,000"
    assert rows[0]["steps/s"] == 10
    assert [row["ETA (s)"] for row in rows] == sorted(row["ETA (s)"] for row in rows)
    assert rows[0]["memory (GB)"] > 0
    assert rows[0]["PSNR (dB)"] == 20.5
    assert artifacts["training"].description == "Step 1,000 of 1,000, 20.5 dB, 0 s to go"
    for key, name in (("training-curve", "curve-0001000.png"), ("training-preview", "view-0001000.jpg")):
        assert artifacts[key].data == f"{PAGES}/flight-1/pictures/{name}"
    preview = np.asarray(Image.open(io.BytesIO(run_file(context, "pictures/view-0001000.jpg"))))
    assert preview.shape == (60, 168, 3)
    assert abs(int(preview[30, 40, 0]) - 200) <= 2  # the photo on the left; JPEG rounds
    assert preview[30, 130, 0] == 255  # the render on the right, clipped
    curve = np.asarray(Image.open(io.BytesIO(run_file(context, "pictures/curve-0001000.png"))).convert("L"))
    assert curve[0, 0] == 255
    assert (curve < 200).any(), "something is drawn"


def test_a_run_ends_with_a_summary(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in_flow(lambda: show_result(context, f"{PAGES}/flight-1/splat"))
    artifacts = artifacts_of(run)
    text = str(artifacts["north-field-summary"].data)
    assert str(artifacts["north-field-summary"].description).startswith("38 of 40 photos registered")
    assert "38 of 40 photos registered · held-out PSNR 24.31 dB · SSIM 0.812 · 58,211 Gaussians · 4.2 MB" in text
    assert f"[Open the splat]({PAGES}/flight-1/splat/index.html)" in text
    assert "| photos | – | – | – | from the workspace |" in text
    assert "| train | 5 min 1 s | $0.0440 | 1.80 GB | in this process |" in text
    assert "trained with at most 30,000" in text
    assert artifacts["north-field-preview"].data == f"{PAGES}/flight-1/pictures/preview.jpg"

    monkeypatch.delenv("SPACEPORT_PAGES_URL")
    without = artifacts_of(run_in_flow(lambda: show_result(context, "/results/flight")))
    assert list(without) == ["north-field-summary"], "no picture where nothing serves it"
    text = str(without["north-field-summary"].data)
    assert "http" not in text
    assert "files in `/results/flight`" in text
    assert "SPACEPORT_PAGES_URL" in text


def show_result(context: RunContext, place: str) -> None:
    stored = {"uri": "/stored", "digest": "d"}
    with run_page("North Field", ReconstructOptions(), context) as page:
        page.show_result(
            PhotosRef(**stored, capture="North Field", usable=40, rejected=0, cached=True),
            SceneRef(**stored, capture="North Field", cameras=38, points=9000, seconds=40),
            GaussiansRef(
                **stored, count=58_211, psnr_db=24.31, seconds=301.4, cost_usd=0.044, peak_memory_bytes=1_800_000_000
            ),
            SogRef(**stored, bytes=4_200_000, seconds=6),
            Publication(
                uri=place,
                page=f"{place}/index.html",
                report=f"{place}/report.html",
                psnr_db=24.31,
                ssim=0.812,
                num_gaussians=58_211,
                sog_bytes=4_200_000,
                degradations=("Memory did not suffice: trained with at most 30,000.",),
            ),
        )


def test_outside_of_a_run_nothing_is_shown_or_kept(tmp_path: Path) -> None:
    @stage_task("sfm")
    def stage(context: RunContext) -> int:
        stage_progress("sfm")(Progress(1, 1))
        TrainingBoard(context).on_step(TrainingStats(1, 1, 0.25, 1, 1.0, None, 0.0))
        return 7

    assert stage.fn(RunContext(workspace=str(tmp_path), run="flight-1")) == 7
    assert list(tmp_path.iterdir()) == []


def test_the_newest_write_of_a_name_is_done_and_all_others_are_dropped() -> None:
    done: list[int] = []
    writer = BackgroundWriter()
    for value in range(100):
        writer.put("value", lambda value=value: done.append(value), 60)
    writer.close()
    assert done[-1] == 99
    assert len(done) <= 2, "the first at once, and the last when the writer was closed"
