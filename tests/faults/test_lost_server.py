"""The Prefect server dies while a stage trains, and comes back."""

import signal
from pathlib import Path

import psutil

from tests.faults.harness import Reconstruction
from tests.support.local_server import Served


def test_training_goes_on_without_the_server(server: Served, flight: Path) -> None:
    run = Reconstruction.start(server, flight, train={"steps": 1200})
    training = run.caught("train")
    [child] = run.stage_runs("train")
    api_url = server.api_url
    lost = psutil.Process(server.pid("server"))
    lost.send_signal(signal.SIGKILL)
    lost.wait()

    again = server.spaceport("up")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "started the Prefect server" in again.stdout
    assert server.api_url == api_url, "the workers and the runs look for it where it was"
    run.wait("Completed")
    assert [(stage_run.id, stage_run.state_name) for stage_run in run.stage_runs("train")] == [(child.id, "Completed")]
    assert not training.is_running()
    assert run.page.is_file()
