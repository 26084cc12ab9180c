"""Runs whose worker has gone: some wait again, others are left as they are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Completed, Late, Pending, Running, Scheduled, Submitting

from deployments.local.queue import RUN_ID, held, put_back

POOL, OTHER = "queue-test", "queue-test-elsewhere"
STATES = {
    "pending": Pending,
    "submitting": Submitting,
    "running": Running,
    "cancelling": Cancelling,
    "late": Late,
    "completed": Completed,
}


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        for name in (POOL, OTHER):
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        yield client
        for name in (POOL, OTHER):
            client.delete_work_pool(name)


def runs_in(client: SyncPrefectClient, pool: str) -> dict[str, FlowRun]:
    """A run in each state."""
    flow = client.create_flow_from_name("queue-test")
    deployment = client.create_deployment(flow, name=pool, work_pool_name=pool)
    made = {}
    for name, state in STATES.items():
        made[name] = client.create_flow_run_from_deployment(deployment, name=name, state=Scheduled())
        client.update_flow_run(made[name].id, infrastructure_pid="elsewhere:1")  # else Prefect cancels without waiting
        client.set_flow_run_state(made[name].id, state(), force=True)
    return made


def states(client: SyncPrefectClient, runs: dict[str, FlowRun]) -> dict[str, str | None]:
    return {name: client.read_flow_run(run.id).state_name for name, run in runs.items()}


UNCHANGED = {"running": "Running", "cancelling": "Cancelling", "late": "Late", "completed": "Completed"}


def test_a_run_that_was_taken_waits_again(client: SyncPrefectClient) -> None:
    ours, theirs = runs_in(client, POOL), runs_in(client, OTHER)
    changes = put_back(client, [POOL], begun=False)
    assert sorted(change.split()[1] for change in changes) == ["pending", "submitting"]
    assert states(client, ours) == UNCHANGED | {"pending": "Scheduled", "submitting": "Scheduled"}
    assert states(client, theirs) == UNCHANGED | {"pending": "Pending", "submitting": "Submitting"}
    again = client.read_flow_run(ours["pending"].id)
    assert again.next_scheduled_start_time == ours["pending"].expected_start_time, "it keeps its place in the queue"
    assert put_back(client, [], begun=True) == []


def test_when_all_goes_down_nothing_that_had_begun_holds_a_slot(client: SyncPrefectClient) -> None:
    ours = runs_in(client, POOL)
    put_back(client, [POOL], begun=True)
    waits = dict.fromkeys(("pending", "submitting", "running"), "Scheduled")
    assert states(client, ours) == UNCHANGED | waits | {"cancelling": "Cancelled"}


def test_a_run_whose_process_lives_is_left_to_it(client: SyncPrefectClient) -> None:
    ours = runs_in(client, POOL)
    process = alive(ours["pending"].id)
    try:
        put_back(client, [POOL], begun=False)
    finally:
        process.kill()
        process.wait()
    assert states(client, ours) == UNCHANGED | {"pending": "Pending", "submitting": "Scheduled"}


def alive(run: UUID) -> subprocess.Popen[str]:
    """A process that works on the run, as far as others can see."""
    command = [sys.executable, "-c", "print('awake', flush=True); input()"]
    process = subprocess.Popen(
        command, env={**os.environ, RUN_ID: str(run)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "awake\n"
    return process


def test_pools_are_held_and_an_operators_pause_stays(client: SyncPrefectClient) -> None:
    client.update_work_pool(OTHER, WorkPoolUpdate(is_paused=True))

    def paused() -> list[bool]:
        return [client.read_work_pool(name).is_paused for name in (POOL, OTHER)]

    def interrupted() -> None:
        with held(client, [POOL, OTHER]):
            assert paused() == [True, True]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert paused() == [False, True]
