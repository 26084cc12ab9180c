"""A worker is killed while a stage of its pool trains. (With the stage's process: tests/deployments, by heartbeat.)"""

from pathlib import Path

import psutil

from tests.faults.harness import Reconstruction
from tests.local_server import Served


def test_the_stage_ends_by_itself_and_the_next_finds_a_worker(server: Served, flight: Path) -> None:
    run = Reconstruction.start(server, flight, train={"steps": 800})
    run.caught("train")
    worker = psutil.Process(server.pid("worker-gpu"))
    worker.kill()
    worker.wait(20)
    run.wait("Completed")
    assert run.states("train") == ["Completed"]

    again = server.spaceport("up")
    assert "started worker-gpu" in again.stdout, again.stdout + again.stderr
    after = Reconstruction.start(server, flight, train={"random_seed": 11, "steps": 20})
    after.wait("Completed")
    assert after.states("train") == ["Completed"]
