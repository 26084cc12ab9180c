"""The queue of this machine's server during `down` and `up`: no run is lost, and none blocks a slot."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Scheduled
from prefect.types._datetime import now

from deployments.runs import every_run

TAKEN = (StateType.PENDING,)  # by a worker, which has not started it yet
BEGUN = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
RUN_ID = "PREFECT__FLOW_RUN_ID"  # in the environment of a run's process


@contextmanager
def held(client: SyncPrefectClient, pools: Sequence[str]) -> Iterator[None]:
    """Keep workers from taking runs of these pools while the block runs. A pool that was paused before stays paused."""
    ours = [pool.name for pool in client.read_work_pools() if pool.name in pools and not pool.is_paused]
    try:
        for name in ours:
            client.update_work_pool(name, WorkPoolUpdate(is_paused=True))
        yield
    finally:
        for name in ours:
            client.update_work_pool(name, WorkPoolUpdate(is_paused=False))


def put_back(client: SyncPrefectClient, pools: Sequence[str], *, begun: bool) -> list[str]:
    """Put runs back into their queue that a worker of these pools has taken and that have no process.

    Call it while the pools' workers do not run. With `begun`, runs that had begun are restarted as well; a run that was
    being cancelled becomes Cancelled. Returns a line for each run that was put back.
    """
    if not pools:
        return []
    alive = _runs_with_a_process()
    changes = []
    states = BEGUN if begun else TAKEN
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))))
    of_pools = WorkPoolFilter(name=WorkPoolFilterName(any_=list(pools)))
    for run in every_run(client, FlowRunSort.ID_DESC, flow_run_filter=wanted, work_pool_filter=of_pools):
        if str(run.id) in alive:
            continue
        if run.state_type == StateType.CANCELLING:
            client.set_flow_run_state(run.id, Cancelled(message="The server was taken down."), force=True)
            continue
        waits: State[object] = Scheduled(
            scheduled_time=run.expected_start_time or now("UTC"),
            message="The worker that had taken this run was stopped before it had started it.",
        )
        client.set_flow_run_state(run.id, waits, force=True)
        changes.append(f"put {run.name} ({str(run.id)[:8]}) back into its queue")
    return changes


def _runs_with_a_process() -> set[str]:
    """Return the ids of flow runs that have a process on this machine, with or without a worker."""
    ids = set()
    for process in psutil.process_iter():
        try:
            ids.add(process.environ().get(RUN_ID, ""))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return ids - {""}
