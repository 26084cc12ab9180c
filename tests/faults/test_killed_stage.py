"""kill -9 of a stage's process: seen at once, and the stage is done again."""

import json
from pathlib import Path

from tests.faults.harness import STAGES, Reconstruction
from tests.local_server import Served


def test_every_stage_is_killed_once_and_the_run_ends_well(server: Served, flight: Path) -> None:
    run = Reconstruction.start(server, flight, fresh=True)
    for stage in STAGES:
        run.caught(stage).kill()
        killed = server.wait(run.stage_runs(stage)[0].id, "Crashed", timeout=20)
        assert killed.state is not None
        assert "-9" in (killed.state.message or "")
    run.wait("Completed")
    for stage in STAGES:
        assert run.states(stage) == ["Crashed", "Completed"], stage
    report = json.loads((run.page.parent / "report.json").read_text())
    assert report["sfm"]["registered"] == 14
    assert report["cache_hits"] == []
