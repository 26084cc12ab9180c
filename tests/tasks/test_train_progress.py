"""Training that ends early: its bar still ends at 100 %, and says why."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tasks.train
from flows.cli.terminal import showing_progress
from tasks.core.progress import Progress
from tasks.core.refs import RunContext, SceneRef
from tasks.core.training import schedule
from tasks.core.training.options import TrainOptions
from tasks.reporting.artifacts import RunArtifacts, Shown
from tasks.reporting.progress import listening
from tasks.reporting.recording import BackgroundWriter, Recording
from tasks.running.stage import run_stage
from tasks.sfm import SFM
from tests.core.training.scenes import made_scene
from tests.tasks.test_train_memory import Nothing

OPTIONS = TrainOptions(steps=300, max_gaussians=900, max_image_size=64, sh_degree=0, backend="cpu")

CASES: dict[str, tuple[dict[str, Any], str | None]] = {
    "flat": ({}, r"ended early \(flat quality\) at step 177 of 300$"),
    "time": (
        {"steps": 1_000_000, "time_budget_seconds": 0.8, "early_stop": False},
        r"ended early \(time budget\) at step \d+ of 1,000,000$",
    ),
    "schedule": ({"early_stop": False}, None),
}


class ShownOnly(RunArtifacts):
    """Artifacts of no run."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []

    def show(self, key: str, shown: Shown) -> None:
        assert key == "progress-train"
        self.shown.append(shown)


@pytest.mark.parametrize("case", CASES)
def test_the_last_step_is_reported_however_training_ends(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, said = CASES[case]
    monkeypatch.setattr(schedule, "FLAT_SHARE", 1.0)  # quality is flat as soon as it may be
    context = RunContext(workspace=str(tmp_path), run="test")

    def compute(folder: Path) -> Nothing:
        made_scene(folder)
        return Nothing()

    output = run_stage(SFM, context, inputs=[], compute=compute)
    scene = SceneRef.of(output, capture="made", cameras=16, points=150)
    reports: list[Progress] = []
    console = Console(file=StringIO(), width=200)
    with showing_progress(console), listening(lambda _, progress: reports.append(progress)):
        tasks.train.train_gaussians.fn(scene, OPTIONS.model_copy(update=changed), context)

    assert [progress.done for progress in reports] == sorted(progress.done for progress in reports)
    assert all(progress.done < progress.total for progress in reports[:-1])
    assert reports[-1].done == reports[-1].total
    assert isinstance(console.file, StringIO)
    line = console.file.getvalue().splitlines()[-1]
    assert line.startswith("train     100%")
    assert re.search(said, line) if said else "ended" not in line

    artifacts, writer = ShownOnly(), BackgroundWriter()
    recording = Recording(artifacts, writer)
    for progress in reports:
        recording.show_progress("train", progress)
    writer.close()
    assert artifacts.shown[-1].data == 100
    assert artifacts.shown[-1].description == f"100 %, {reports[-1].note}"
