"""`spaceport up`, `status`, `runs`, `logs`, `cancel` and `down`, as a person types them, on one server.

A run whose process dies is made first: the server takes its time to miss it, and the other tests use that time.
"""

import asyncio
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.events.schemas.automations import AutomationCore
from prefect.states import AwaitingRetry, Cancelled, Running, Scheduled
from prefect.types._datetime import now

from deployments.apply import FILE
from deployments.automations import SILENCE_SECONDS, hung
from deployments.local.processes import find
from deployments.local.state import WORKERS, folder_of, read_state
from deployments.pools import POOLS
from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tasks.core.stages import PARTS, STAGES
from tests.conftest import REPOSITORY
from tests.deployments.receiver import Receiver, receiving
from tests.support.local_server import Served, serving
from tests.support.patience import STALL_SECONDS, eventually, finished, work_of

NOTHING: dict[str, Any] = {
    "scene": {"uri": "/nothing", "digest": "0" * 64, "capture": "x", "cameras": 3, "points": 100},
    "options": {},
    "context": {"workspace": "/nothing", "run": "x"},
}
SMALL: dict[str, Any] = {"preset": "draft", "train": {"steps": 60, "max_gaussians": 3000, "max_image_size": 160}}


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "meadow"
    fly(folder, DemoOptions(photos=14, width=640, height=480), ignore_progress)
    return folder


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Served]:
    """All stages in the run's own process: tests/faults has them in runs of their own."""
    folder = tmp_path_factory.mktemp("up")
    with serving(folder / "home", folder / "workspace", notify=receiver.url, dispatch="") as served:
        yield served


@pytest.fixture(autouse=True)
def _up(server: Served, receiver: Receiver) -> None:
    """For every test, also after the one that takes the server down."""
    if read_state(server.home) is None:
        choices = ("--port", "0", "--workspace", str(server.workspace), "--notify", receiver.url, "--dispatch", "")
        up = server.spaceport("up", *choices)
        assert up.returncode == 0, up.stderr


@pytest.fixture(scope="module")
def rescheduled(server: Served) -> UUID:
    """A run that was in progress and waits for another machine, as when a spot instance is taken away."""
    with server.client() as client:
        deployment = client.read_deployment_by_name("reconstruct/reconstruct")
        later = Scheduled(scheduled_time=now("UTC") + timedelta(hours=1))
        run = client.create_flow_run_from_deployment(deployment.id, parameters={"photos": "later"}, state=later)
        client.set_flow_run_state(run.id, Running(), force=True)
        again = AwaitingRetry(scheduled_time=now("UTC") + timedelta(hours=1))
        client.set_flow_run_state(run.id, again, force=True)
    return run.id


@pytest.fixture(scope="module")
def hanging(server: Served) -> UUID:
    """A run that is at work for longer than an automation allows, which here is the shortest that Prefect admits."""
    with server.client() as client:
        asyncio.run(create_automation(server, hung("Test: a stage hangs", ("train",), 10 / 3600)))
        deployment = client.read_deployment_by_name("train/train")
        later = Scheduled(scheduled_time=now("UTC") + timedelta(hours=1))
        run = client.create_flow_run_from_deployment(deployment.id, parameters=NOTHING, state=later)
        client.set_flow_run_state(run.id, Running(), force=True)
    return run.id


async def create_automation(server: Served, automation: AutomationCore) -> None:
    async with PrefectClient(server.api_url, auth_string=server.secret) as client:
        await client.create_automation(automation)


@pytest.fixture(scope="module")
def doomed(server: Served, flight: Path, rescheduled: UUID, hanging: UUID) -> UUID:
    """A run whose process is killed, and the worker, who would have noticed, with it. It is missed after the other."""
    run = server.start({"photos": str(flight), "options": SMALL})
    server.wait(run.id, "Running")
    worker = psutil.Process(server.pid("worker-cpu"))
    family = [worker, *worker.children(recursive=True)]
    assert len(family) > 1, "the worker has no process for the run"
    for process in family:
        process.kill()
    psutil.wait_procs(family)
    return run.id


def test_a_worker_that_died_comes_back_and_status_tells(server: Served, doomed: UUID) -> None:
    before = {name: server.pid(name) for name in ("server", "worker-gpu", "pages")}
    folder = folder_of(server.home)
    eventually(lambda: find("worker-cpu", folder), "new worker", lambda: work_of(before["server"]))
    up = server.spaceport("up")
    assert up.returncode == 0, up.stderr
    assert "started" not in up.stdout, "there would be two"
    status = server.spaceport("status")
    assert status.returncode == 0, status.stdout + status.stderr
    [line] = [line for line in status.stdout.splitlines() if "worker-cpu" in line]
    assert "(it died 1×)" in line
    assert {name: server.pid(name) for name in before} == before


def test_down_refuses_while_a_run_is_in_progress(server: Served, doomed: UUID) -> None:
    down = server.spaceport("down")
    assert down.returncode == 1
    assert str(doomed)[:8] in down.stderr
    assert "--now" in down.stderr
    server.pid("server")


def test_a_second_up_changes_nothing(server: Served) -> None:
    up = server.spaceport("up")
    assert up.returncode == 0, up.stderr
    assert "nothing changed" in up.stdout
    for trouble in ("Traceback", "WARNING", "Warning"):
        assert trouble not in up.stdout + up.stderr


def test_a_run_made_by_hand_chooses_no_environment(server: Served) -> None:
    with server.http() as http:
        deployment = http.get("/deployments/name/reconstruct/reconstruct").raise_for_status().json()
        run = {"flow_id": deployment["flow_id"], "deployment_id": deployment["id"], "work_pool_name": "spaceport-cpu"}
        answer = http.post("/flow_runs/", json={**run, "job_variables": {"env": {"LD_PRELOAD": "/tmp/x.so"}}})
    assert answer.status_code == 422, answer.text


def test_a_run_of_the_form_ends_with_a_page_and_a_message(server: Served, receiver: Receiver, flight: Path) -> None:
    run = server.wait(server.start({"photos": str(flight), "options": SMALL}).id, "Completed")
    message = receiver.wait_for("meadow", "Completed", str(run.id))
    assert message["subject"] == f"Spaceport: {run.name} done"
    assert f"{server.ui_url}/runs/flow-run/{run.id}" in message["text"]

    listed = server.spaceport("runs", "--state", "completed")
    assert listed.returncode == 0, listed.stderr
    [line] = [line for line in listed.stdout.splitlines() if str(run.id)[:8] in line]
    page = line.split()[-1]
    assert "dB" in line
    assert page.startswith(server.pages_url)
    assert "<html" in httpx.get(page, timeout=STALL_SECONDS).text

    logs = server.spaceport("logs", str(run.id)[:8])
    assert logs.returncode == 0, logs.stderr
    times = [line.split()[0] for line in logs.stdout.splitlines() if line[2:3] == ":"]
    assert times == sorted(times)
    assert "publish 100 %" in logs.stdout


def test_cancel_ends_the_process(server: Served, flight: Path) -> None:
    options = {**SMALL, "train": {**SMALL["train"], "steps": 100_000}}
    run = server.start({"photos": str(flight), "options": options})
    server.wait(run.id, "Running")
    worker = psutil.Process(server.pid("worker-cpu"))
    engines = worker.children(recursive=True)
    assert engines

    cancelled = server.spaceport("cancel", str(run.id))
    assert cancelled.returncode == 0, cancelled.stderr
    assert "Cancelled" in cancelled.stdout
    psutil.wait_procs(engines)

    again = server.spaceport("cancel", str(run.id))
    assert again.returncode == 2
    assert "ended already" in again.stderr


def test_a_failure_is_told(server: Served, receiver: Receiver, tmp_path: Path) -> None:
    run = server.wait(server.start({"photos": str(tmp_path / "nowhere")}).id, "Failed")
    message = receiver.wait_for("nowhere", "Failed", str(run.id))
    assert run.state is not None
    assert str(run.state.message) in message["text"]


def test_prefects_own_command_makes_the_same_deployments(server: Served) -> None:
    with server.client() as client:
        ours = {entry.name: entry for entry in client.read_deployments()}
        done = finished(
            [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)],
            cwd=REPOSITORY,
            env={**server.access, "PREFECT_HOME": str(server.home / "prefect"), "PATH": ""},
        )
        assert done.returncode == 0, done.stderr
        theirs = {entry.name: entry for entry in client.read_deployments()}
    assert theirs.keys() == ours.keys() == {"reconstruct", *STAGES, *PARTS}
    for name, entry in theirs.items():
        same = ("work_pool_name", "work_queue_name", "entrypoint", "parameter_openapi_schema", "pull_steps", "tags")
        for field in same:
            assert getattr(entry, field) == getattr(ours[name], field), (name, field)
    assert theirs["train"].work_pool_name == "spaceport-gpu"
    assert theirs["reconstruct"].job_variables == {"dispatch": "sfm,train,compress"}


def test_a_run_tells_that_it_lives_before_it_is_taken_for_dead(server: Served) -> None:
    with server.client() as client:
        for pool in POOLS:
            told = client.read_work_pool(pool).base_job_template["job_configuration"]["env"]
            assert 3 * int(told["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) < SILENCE_SECONDS


def test_a_run_whose_process_is_gone_crashes(
    server: Served, receiver: Receiver, doomed: UUID, rescheduled: UUID
) -> None:
    run = server.wait(doomed, "Crashed")
    receiver.wait_for("Crashed", str(doomed))
    assert run.state is not None
    assert f"for {SILENCE_SECONDS} s" in str(run.state.message)
    with server.client() as client:
        assert client.read_flow_run(rescheduled).state_name == "AwaitingRetry", "it waits for a machine, and may"
        client.set_flow_run_state(rescheduled, Cancelled(), force=True)
        others = {entry.state_name for entry in client.read_flow_runs() if entry.id != doomed}
    assert "Crashed" not in others, "the automation touched a run that had ended"


def test_a_run_that_hangs_is_cancelled(server: Served, hanging: UUID) -> None:
    server.wait(hanging, "Cancelling", "Cancelled")
    with server.client() as client:
        states = client.read_flow_run_states(hanging)
    assert [state for state in states if "it hangs, and is ended" in (state.message or "")]


def test_down_leaves_nothing(server: Served) -> None:
    names = ("server", "pages", *WORKERS)
    processes = [psutil.Process(server.pid(name)) for name in names]
    processes += [child for process in processes for child in process.children(recursive=True)]
    assert "database is locked" not in server.log("server")
    down = server.spaceport("down")
    assert down.returncode == 0, down.stderr
    assert not any(process.is_running() for process in processes)
    left = {path.name for path in (server.home / "up").glob("*.json")}
    assert left == {"up.json", "secrets.json"}, "for the next up, and for the links of these pages"
    assert "nothing was up" in server.spaceport("down").stdout
    status = server.spaceport("status")
    assert (status.returncode, "nothing is up" in status.stdout) == (1, True)
    runs = server.spaceport("runs")
    assert runs.returncode == 1
    assert "spaceport up" in runs.stderr
