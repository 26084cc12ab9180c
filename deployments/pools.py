"""Work pools and their queues.

A run holds a process while it waits for its stages. Runs and stages therefore take their slots from different queues:
with a common limit, waiting runs could hold every slot and the stages they wait for would never start.
"""

import json
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from deployments.plan import Plan

TEMPLATES = Path(__file__).parent / "pools"
POOLS = ("cpu", "gpu")
DESCRIPTIONS = {
    "cpu": "Runs, and the stages that need no GPU.",
    "gpu": "Training. Its limit keeps two trainings from sharing a machine's memory.",
}


async def apply_pools(client: PrefectClient, plan: Plan) -> list[str]:
    """Create or correct both pools and their queues; says what changed."""
    changes = [change for pool in POOLS for change in await _apply_pool(client, pool, _pool_limit(pool, plan))]
    for pool, queue, limit in (
        ("cpu", "runs", plan.run_slots),
        ("cpu", "stages", plan.cpu_slots),
        ("gpu", "stages", plan.gpu_slots),
    ):
        changes += await _apply_queue(client, pool, queue, limit)
    return changes


def _pool_limit(pool: str, plan: Plan) -> int | None:
    return plan.gpu_slots if pool == "gpu" else None


async def _apply_pool(client: PrefectClient, name: str, limit: int | None) -> list[str]:
    template: dict[str, Any] = json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8"))
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type="process",
                description=DESCRIPTIONS[name],
                base_job_template=template,
                concurrency_limit=limit,
            )
        )
        return [f"created work pool {name}"]
    if pool.base_job_template == template and pool.concurrency_limit == limit:
        return []
    await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template, concurrency_limit=limit))
    return [f"updated work pool {name}"]


async def _apply_queue(client: PrefectClient, pool: str, name: str, limit: int) -> list[str]:
    try:
        queue = await client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        await client.create_work_queue(name, work_pool_name=pool, concurrency_limit=limit)
        return [f"created queue {pool}/{name}"]
    if queue.concurrency_limit == limit:
        return []
    await client.update_work_queue(queue.id, concurrency_limit=limit)
    return [f"updated queue {pool}/{name}: {limit} at once"]
