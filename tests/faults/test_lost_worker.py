"""A worker is killed while a stage of its pool trains. (With the stage's process: tests/deployments, by heartbeat.)"""

from pathlib import Path

import psutil

from tests.faults.harness import Reconstruction
from tests.support.local_server import Served


def test_a_new_worker_takes_over(server: Served, flight: Path) -> None:
    run = Reconstruction.start(server, flight, train={"steps": 800})
    run.caught("train")
    worker = psutil.Process(server.pid("worker-gpu"))
    worker.kill()
    worker.wait()
    again = server.spaceport("up")  # waits for the new one, which the server starts
    assert again.returncode == 0, again.stdout + again.stderr
    assert server.pid("worker-gpu") != worker.pid
    # The stage's process may end its work without the worker; if not, its silence is noticed and it is done again.
    run.wait("Completed")
    assert run.states("train") in (["Completed"], ["Crashed", "Completed"])
