"""A training in cells is disturbed: the splat has the same bytes, and no cell is computed again but the disturbed one.

The pool for training has one place, so one cell trains and the other one waits.
"""

import json
import shutil
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.states import Cancelling, Scheduled

from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tasks.core.storage.locks import remove_unused
from tests.faults.harness import Reconstruction
from tests.support.engines import engines
from tests.support.local_server import Served

TRAIN = {"steps": 200, "max_gaussians": 6000, "cells": 2, "checkpoint_seconds": 0.5}

WORKERS_WORDS = "prefect.flow_runs.worker - Check whether the flow run exceeded its memory allocation"


@pytest.fixture(scope="module")
def larger_flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos enough for two cells."""
    folder = tmp_path_factory.mktemp("cells") / "flight"
    fly(folder, DemoOptions(photos=18, width=640, height=480), ignore_progress)
    return folder


@pytest.fixture(scope="module")
def undisturbed(server: Served, larger_flight: Path) -> bytes:
    run = Reconstruction.start(server, larger_flight, train=TRAIN)
    run.wait("Completed")
    assert run.states("cells") == ["Completed"]
    assert run.states("cell") == ["Completed", "Completed"]
    assert run.states("train") == ["Completed"]
    report = json.loads((run.page.parent / "report.json").read_text())
    assert [cell["cached"] for cell in report["train"]["cells"]] == [False, False]
    assert sum(cell["seconds"] for cell in report["train"]["cells"]) < report["seconds"]["train"]
    assert report["train"]["seam_psnr_db"] > 0
    logs = {path.name for path in (run.page.parents[1] / "logs").iterdir()}
    assert {"cells.log", "cell-00.log", "cell-01.log", "train.log"} <= logs
    return splat(run)


@pytest.fixture
def run(undisturbed: bytes, server: Served, larger_flight: Path) -> Reconstruction:
    """The same again, whose cells are lost."""
    for stage in ("cell", "train"):
        shutil.rmtree(server.workspace / "stages" / stage, ignore_errors=True)
    return Reconstruction.start(server, larger_flight, train=TRAIN)


def splat(run: Reconstruction) -> bytes:
    return (run.page.parent / "scene.ply").read_bytes()


def run_of(process: psutil.Process) -> UUID:
    return UUID(process.environ()["PREFECT__FLOW_RUN_ID"])


def attempts(run: Reconstruction) -> dict[str, str]:
    """States of the cells' own runs, by what follows the run's name."""
    return {each.name.split(" ", 1)[1]: each.state_name or "" for each in run.stage_runs("cell")}


def test_the_process_of_a_cell(run: Reconstruction, server: Served, undisturbed: bytes) -> None:
    process = run.caught("cell")
    run.eventually(lambda: list((server.workspace / "checkpoints").rglob("*.npz")), "checkpoint")
    killed = run_of(process)
    process.kill()
    server.wait(killed, "Crashed")
    run.wait("Completed")
    [name] = [each.name.split(" ", 1)[1] for each in run.stage_runs("cell") if each.id == killed]
    expected = {"cell-00": "Completed", "cell-01": "Completed", name: "Crashed", f"{name} (2)": "Completed"}
    assert attempts(run) == expected
    assert splat(run) == undisturbed
    assert not list((server.workspace / "checkpoints").rglob("*.npz"))


def test_the_worker_of_a_cell(run: Reconstruction, server: Served, undisturbed: bytes) -> None:
    run.caught("cell")
    worker = psutil.Process(server.pid("worker-gpu"))
    worker.kill()
    worker.wait()
    again = server.spaceport("up")
    assert again.returncode == 0, again.stdout + again.stderr
    run.wait("Completed")
    states = sorted(attempts(run).values())
    assert states in (["Completed", "Completed"], ["Completed", "Completed", "Crashed"])
    assert splat(run) == undisturbed


def test_the_run_that_asked_for_the_cells(run: Reconstruction, server: Served, undisturbed: bytes) -> None:
    run.caught("cell")
    earlier = server.log("worker-cpu").count(WORKERS_WORDS)
    engines()[str(run.id)].kill()
    server.wait(run.id, "Crashed")
    # The worker reports it a second time, and would make the run Crashed again if it had been started in between.
    run.eventually(lambda: server.log("worker-cpu").count(WORKERS_WORDS) > earlier, "worker's own report")
    with server.client() as client:
        client.set_flow_run_state(run.id, Scheduled(), force=True)  # as *Retry* in the UI does
    run.wait("Completed")
    assert attempts(run) == {"cell-00": "Completed", "cell-01": "Completed"}, "it has found those that it had made"
    assert splat(run) == undisturbed


def test_cancel_ends_the_cell_at_work_and_the_one_that_waits(run: Reconstruction, server: Served) -> None:
    process = run.caught("cell")
    run.eventually(lambda: len(run.stage_runs("cell")) == 2, "second cell")
    with server.client() as client:
        client.set_flow_run_state(run.id, Cancelling())
    run.wait("Cancelled")
    for cell in run.stage_runs("cell"):
        server.wait(cell.id, "Cancelled")
    run.eventually(lambda: str(run.id) not in engines() and not process.is_running(), "end of the processes")
    assert all(remove_unused(left) for left in run.partial_folders("cell"))
    assert not run.stage_runs("train")
