"""The queue, the choices and an operator's pause outlive `spaceport down`; a schedule makes runs.

One server for the whole file, in this order. The runs have no photos: each fails as soon as it can run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun, StateType

from deployments.local.state import LocalServer, read_state
from tests.support.local_server import Served, serving
from tests.support.patience import eventually

QUEUED = 7  # three may run at once
NOTIFIED = "http://127.0.0.1:9/hook"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("down-and-up")
    with serving(folder / "home", folder / "workspace", dispatch="", cpu_slots=2, notify=NOTIFIED) as served:
        yield served


def remembered(server: Served) -> LocalServer:
    state = read_state(server.home)
    assert state is not None
    return state


def reconstruct(server: Served) -> dict[str, Any]:
    with server.http() as http:
        return dict(http.get("/deployments/name/reconstruct/reconstruct").raise_for_status().json())


def runs(server: Served) -> dict[UUID, FlowRun]:
    with server.client() as client:
        return {run.id: run for run in client.read_flow_runs(limit=200)}


def test_a_schedule_makes_runs_that_run(server: Served, tmp_path: Path) -> None:
    url = f"/deployments/{reconstruct(server)['id']}/schedules"
    parameters = {"photos": str(tmp_path / "scheduled")}
    schedule = {"schedule": {"interval": 60}, "active": True, "parameters": parameters}
    with server.http() as http:
        [made] = http.post(url, json=[schedule]).raise_for_status().json()

    def failed() -> list[FlowRun]:
        return [run for run in runs(server).values() if run.state_type == StateType.FAILED]

    # The first is due within a minute, in which nothing but the clock moves.
    ended = eventually(
        failed, "scheduled run that has ended", lambda: [run.state_name for run in runs(server).values()]
    )
    assert ended[0].auto_scheduled
    assert ended[0].parameters == parameters
    assert "does not exist" in str(ended[0].state and ended[0].state.message)
    with server.http() as http:
        http.delete(f"{url}/{made['id']}").raise_for_status()


def test_the_queue_goes_on_after_down_and_up(server: Served, tmp_path: Path) -> None:
    before = remembered(server)
    queued = [server.start({"photos": str(tmp_path / f"queued-{i}")}).id for i in range(QUEUED)]
    server.wait(queued[0], "Submitting", "Running", "Failed")

    down = server.spaceport("down", "--now")
    assert down.returncode == 0, down.stdout + down.stderr + server.log("server")  # of a tuple pytest shows 240 letters
    assert remembered(server) == before.model_copy(update={"up": False})
    status = server.spaceport("status")
    assert status.returncode == 1
    assert before.choices in status.stdout

    up = server.spaceport("up")
    assert up.returncode == 0, up.stderr
    assert remembered(server) == before
    ends = [server.wait(run, "Failed", "Cancelled").state_name for run in queued]
    assert "Failed" in ends, "the queue had begun already"
    with server.client() as client:
        assert not any(pool.is_paused for pool in client.read_work_pools())


def test_an_option_of_up_changes_one_thing(server: Served) -> None:
    before = remembered(server)
    up = server.spaceport("up", "--gpu-slots", "3")
    assert up.returncode == 0, up.stderr
    assert "updated work pool spaceport-gpu" in up.stdout
    after = remembered(server)
    assert after == before.model_copy(update={"plan": before.plan.model_copy(update={"gpu_slots": 3})})
    assert after.choices in up.stdout
    assert NOTIFIED not in up.stdout
    again = server.spaceport("up", "--reset")
    assert again.returncode == 2
    assert "`spaceport down` first" in again.stderr
    assert remembered(server) == after


def test_a_pause_stays_and_is_told(server: Served) -> None:
    with server.client() as client:
        client.update_work_pool("spaceport-cpu", WorkPoolUpdate(is_paused=True))
        queue = client.read_work_queue_by_name("stages", work_pool_name="spaceport-gpu")
        client.update_work_queue(queue.id, is_paused=True)
    resume = "spaceport prefect work-pool resume spaceport-cpu"
    for command, says in (("status", "paused"), ("up", "nothing changed"), ("down", "stopped"), ("up", "started")):
        finished = server.spaceport(command)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert says in finished.stdout
        if command != "down":
            assert "paused pool spaceport-cpu" in finished.stdout
            assert resume in finished.stdout
            assert "paused queue spaceport-gpu/stages" in finished.stdout
            assert "spaceport prefect work-queue resume stages --pool spaceport-gpu" in finished.stdout
    with server.client() as client:
        assert client.read_work_pool("spaceport-cpu").is_paused
    resumed = server.spaceport("prefect", "work-pool", "resume", "spaceport-cpu")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    with server.client() as client:
        assert not client.read_work_pool("spaceport-cpu").is_paused


def test_states_are_named_as_people_write_them(server: Served) -> None:
    wrong = server.spaceport("runs", "--state", "Bogus")
    assert wrong.returncode == 2
    assert "There is no state 'Bogus'" in wrong.stderr
    assert "AwaitingRetry" in wrong.stderr
    none = server.spaceport("runs", "--state", "awaiting-retry")
    assert (none.returncode, none.stdout.strip()) == (0, "no run is awaiting-retry")
    some = server.spaceport("runs", "--state", "failed")
    assert "Failed" in some.stdout


def test_reset_begins_anew(server: Served, tmp_path: Path) -> None:
    down = server.spaceport("down")
    assert down.returncode == 0, down.stderr
    fresh = tmp_path / "fresh"
    up = server.spaceport("up", "--reset", "--port", "0", "--workspace", str(fresh))
    assert up.returncode == 0, up.stderr
    plan = remembered(server).plan
    assert (plan.workspace, plan.gpu_slots, plan.notify, plan.dispatch) == (str(fresh), 1, None, None)
