"""Artifacts of a whole run and of its training in Prefect's UI, read back from a real server."""

import io
import json
import signal
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelling

from tasks.core.errors import RegistrationError
from tasks.core.measurements import CurvePoint, EstimateSection, SecondsSection
from tasks.core.options import ReconstructOptions
from tasks.core.progress import Progress
from tasks.core.refs import CellRef, GaussiansRef, Outputs, PhotosRef, Publication, RunContext, SceneRef, SogRef
from tasks.core.training.trainer import EvaluatedView, TrainingStats
from tasks.reporting import recording
from tasks.reporting.progress import run_logger, stage_progress
from tasks.reporting.run_page import RunPage, run_page, show_end
from tasks.reporting.training_board import KEPT_ROWS, TrainingBoard
from tasks.running.retries import stage_task
from tests.support.flow_runs import PAGES, artifacts_of, run_file, run_in_flow


@pytest.fixture
def context(tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    monkeypatch.setenv("SPACEPORT_PAGES_URL", PAGES)
    return RunContext(workspace=str(tmp_path), run="flight-1")


def test_training_shows_a_table_a_curve_and_a_held_out_view(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "UPDATE_SECONDS", 0.05)
    photo = np.full((60, 80, 3), 200, np.uint8)

    @stage_task("train")
    def stage(context: RunContext) -> None:
        board = TrainingBoard(context)
        curve: list[CurvePoint] = []
        for step in range(1, 1001):
            if step % 250 == 0:
                point = CurvePoint(step=step, seconds=step / 10, psnr_db=15 + step / 100)
                curve.append(point)
                image = np.full((60, 80, 3), 1.2, np.float32)
                board.on_evaluation(EvaluatedView(tuple(curve), "007.jpg", photo, image))
            board.on_step(TrainingStats(step, 1000, 0.25, 5000 + step, step / 10, 20.5, 0.634, (1000 - step) / 10))

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
    assert (rows[0]["PSNR (dB)"], rows[0]["detail (%)"]) == (20.5, 63)
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


def test_the_cell_that_failed_is_named_and_not_the_last_one_that_began(context: RunContext) -> None:
    @stage_task("cell", "cell-{number:02}")
    def cell(number: int, context: RunContext) -> int:
        run_logger().info("on cell %d", number)
        if number == 1:
            raise RegistrationError("The bucket is gone.")
        return number

    runs: list[UUID] = []

    def body() -> None:
        runs.append(UUID(str(flow_run.id)))
        with run_page("North Field", ReconstructOptions(), context):
            futures = [cell.submit(number, context) for number in range(3)]
            for future in futures:
                future.wait()
            futures[1].result()

    with pytest.raises(RegistrationError):
        run_in_flow(body)
    assert str(artifacts_of(runs[0])["north-field-summary"].data).startswith("# North Field: failed in cell-01\n")
    logs = [run_file(context, f"logs/cell-0{number}.log").decode() for number in range(3)]
    assert ["The bucket is gone" in log for log in logs] == [False, True, False]
    for number, log in enumerate(logs):
        assert [f"on cell {other}" in log for other in range(3)] == [other == number for other in range(3)]


@pytest.mark.parametrize(
    ("cached", "said"),
    [
        ((False, False, False), "in this process, in 3 cells"),
        ((True, False, True), "in this process, in 3 cells, 2 of them from the workspace"),
    ],
)
def test_a_training_in_cells_says_how_many_it_has_computed(
    cached: tuple[bool, ...], said: str, context: RunContext
) -> None:
    cells = tuple(
        CellRef(uri=f"/{number}", digest="a", cached=was, number=number, count=1, psnr_db=None)
        for number, was in enumerate(cached)
    )
    gaussians = GaussiansRef(uri="/g", digest="b", seconds=300.0, count=3, psnr_db=None, cells=cells)
    [line] = RunPage("North Field", context, None)._stage_lines({"train": gaussians}, None)
    assert line.where == said


def test_names_on_a_failed_runs_page_are_no_markdown(context: RunContext) -> None:
    """A member's name made a link and a picture there, in the summary as in its description and a stage's progress."""
    name = "[Sign in](http://evil.example)![](http://evil.example/a.png)\n\n# x"

    @stage_task("photos")
    def stage(context: RunContext) -> int:
        stage_progress("photos")(Progress(1, 4, name))
        raise RegistrationError(f"{name} is no photo.")

    runs: list[UUID] = []

    def body() -> None:
        runs.append(UUID(str(flow_run.id)))
        with run_page(name, ReconstructOptions(), context):
            stage(context)

    with pytest.raises(RegistrationError):
        run_in_flow(body)
    artifacts = artifacts_of(runs[0])
    for artifact in artifacts.values():
        for text in filter(None, (artifact.description, artifact.data if artifact.type == "markdown" else None)):
            assert "Sign in" in str(text)
            assert "[Sign" not in str(text).replace("\\[", "")
            assert "](http://evil" not in str(text).replace("\\]", "")
            assert "\n# x" not in str(text)
    assert "progress-photos" in artifacts
    assert any(key.endswith("-summary") for key in artifacts)


def test_a_run_ends_with_a_summary(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in_flow(lambda: show_result(context, f"{PAGES}/flight-1/splat"))
    artifacts = artifacts_of(run)
    text = str(artifacts["north-field-summary"].data)
    assert str(artifacts["north-field-summary"].description).startswith("38 of 40 photos registered")
    quality = "held-out PSNR 24.31 dB · SSIM 0.812 · GMSD 0.103 · 74% of the photos' detail"
    assert f"38 of 40 photos registered · {quality} · 58,211 Gaussians · 4.2 MB" in text
    assert f"[Open the splat]({PAGES}/flight-1/splat/index.html)" in text
    assert "| photos | about 1.5 s | – | – | – | from the workspace |" in text
    assert "| sfm | – | 40.0 s | – | – | in this process, cameras from the workspace |" in text
    assert "| train | about 4 min 40 s | 5 min 1 s | $0.0440 | 1.80 GB | in this process |" in text
    assert "| **whole run** | about 5 min 20 s |" in text
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
            Outputs(
                photos=PhotosRef(**stored, capture="North Field", usable=40, rejected=0, cached=True),
                scene=SceneRef(
                    **stored, capture="North Field", cameras=38, points=9000, seconds=40, cameras_cached=True
                ),
                gaussians=GaussiansRef(
                    **stored,
                    count=58_211,
                    psnr_db=24.31,
                    seconds=301.4,
                    cost_usd=0.044,
                    peak_memory_bytes=1_800_000_000,
                ),
                sog=SogRef(**stored, bytes=4_200_000, seconds=6),
            ),
            Publication(
                **stored,
                place=place,
                page=f"{place}/index.html",
                report=f"{place}/report.html",
                psnr_db=24.31,
                ssim=0.812,
                gmsd=0.103,
                detail=0.736,
                num_gaussians=58_211,
                sog_bytes=4_200_000,
                degradations=("Memory did not suffice: trained with at most 30,000.",),
            ),
            EstimateSection(seconds=SecondsSection(photos=1.5, train=280, total=320), peak_memory_bytes=1_700_000_000),
        )


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_is_ended_from_outside_says_so_on_its_page() -> None:
    """The process of a cancelled run says that it crashed, and its worker, a moment later, that it was cancelled."""
    ids: list[UUID] = []

    @flow(on_crashed=[show_end], on_cancellation=[show_end])
    def ended(photos: str) -> None:
        ids.append(UUID(str(flow_run.id)))
        raise TerminationSignal(signal.SIGTERM)

    # When the run has ended, Prefect sends the signal once more, to the handler of before.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with pytest.raises(TerminationSignal):
            ended("/photos/North Field")
    finally:
        signal.signal(signal.SIGTERM, before)
    [artifact] = artifacts_of(ids[0]).values()
    assert artifact.key == "north-field-summary"
    assert str(artifact.data).startswith("# North Field: crashed\n")
    assert "Start the same run again to continue." in str(artifact.data)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(ids[0])
    show_end(ended, run, Cancelling(message="by Ann"))
    [artifact] = artifacts_of(ids[0]).values()
    assert str(artifact.data).startswith("# North Field: cancelled\n\n> by Ann\n")
