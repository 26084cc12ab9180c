"""kill -9 of a stage's process: it is noticed, and the stage runs again; training continues from its checkpoint."""

import json
from pathlib import Path

from tasks.core.stages import STAGES
from tests.faults.harness import Reconstruction
from tests.support.local_server import Served


def test_every_stage_is_killed_once_and_the_run_ends_well(server: Served, flight: Path) -> None:
    others = checkpoints(server)  # of trainings that tests before this one have ended
    run = Reconstruction.start(server, flight, train={"steps": 1000, "checkpoint_seconds": 0.5}, fresh=True)
    for stage in STAGES:
        process = run.caught(stage)
        if stage == "train":
            run.eventually(
                lambda: [path for path in checkpoints(server) - others if path.parent.suffix != ".partial"],
                "checkpoint",
            )
        process.kill()
        killed = server.wait(run.stage_runs(stage)[0].id, "Crashed")
        assert killed.state is not None
        assert "-9" in (killed.state.message or "")
    run.wait("Completed")
    for stage in STAGES:
        assert run.states(stage) == ["Crashed", "Completed"], stage
        expected = run.stage_runs(stage)[0].parameters["context"]["expected_seconds"]
        # the photos stage comes before the estimate, which needs the photos
        assert (stage in expected) == (stage != "photos"), "what the run that waits for it knows"
    report = json.loads((run.page.parent / "report.json").read_text())
    assert report["sfm"]["registered"] == 14
    assert report["cache_hits"] == []
    assert 0 < report["train"]["resumed_from_step"] < 1000
    assert checkpoints(server) - others == set()


def checkpoints(server: Served) -> set[Path]:
    """All there are, those that are still being written in a folder *.partial included."""
    return set((server.workspace / "checkpoints").rglob("*.npz"))
