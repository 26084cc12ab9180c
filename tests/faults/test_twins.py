"""Two identical runs at once: both end well, with one result."""

from pathlib import Path

from tasks.core.stages import STAGES
from tests.faults.harness import Reconstruction
from tests.support.local_server import Served


def test_two_identical_runs_at_once(server: Served, flight: Path) -> None:
    twins = [Reconstruction.start(server, flight, train={"random_seed": 7}) for _ in range(2)]
    for run in twins:
        run.wait("Completed")
    first, second = (run.page.parent for run in twins)
    assert first != second
    assert (first / "scene.sog").read_bytes() == (second / "scene.sog").read_bytes()
    # One output for each stage but publish, whoever was first; nothing half-written beside it.
    for run in twins:
        for stage in STAGES:
            assert set(run.states(stage)) <= {"Completed"}
            assert run.partial_folders(stage) == []
