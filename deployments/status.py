"""How this machine's server and its companions are."""

from collections.abc import Mapping

from prefect.client.orchestration import get_client


def workers_heard_of(since: Mapping[str, float]) -> set[str]:
    """The work pools whose `local-<pool>` worker was heard of after that time (seconds since the epoch)."""
    with get_client(sync_client=True) as client:
        return {
            pool
            for pool, moment in since.items()
            for worker in client.read_workers_for_work_pool(pool)
            if worker.name == f"local-{pool}"
            and worker.last_heartbeat_time is not None
            and worker.last_heartbeat_time.timestamp() >= moment
        }
