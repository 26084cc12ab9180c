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
from pydantic import BaseModel, ConfigDict

from deployments.infrastructure import Infrastructure
from deployments.plan import EC2_GPU, ECS_CPU, ECS_GPU, Plan

TEMPLATES = Path(__file__).parent / "pools"
POOLS = ("cpu", "gpu")
MANY = 200  # stages at once on Fargate, which has a quota of its own


class Pool(BaseModel):
    """A work pool as it shall be."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str = "process"
    description: str
    template: dict[str, Any]
    limit: int | None = None  # runs at once
    queues: dict[str, int]  # name -> runs at once


async def apply_pools(client: PrefectClient, plan: Plan) -> list[str]:
    """Create or correct all pools and their queues; says what changed."""
    changes: list[str] = []
    for pool in planned_pools(plan):
        changes += await _apply_pool(client, pool)
        for queue, limit in pool.queues.items():
            changes += await _apply_queue(client, pool.name, queue, limit)
    return changes


def planned_pools(plan: Plan) -> list[Pool]:
    """The pools of a plan: processes on machines of somebody's own, or ECS and EC2."""
    if plan.infrastructure is not None:
        return _aws_pools(plan.infrastructure)
    return [
        Pool(
            name="cpu",
            description="Runs, and the stages that need no GPU.",
            template=_template("cpu"),
            queues={"runs": plan.run_slots, "stages": plan.cpu_slots},
        ),
        Pool(
            name="gpu",
            description="Training. Its limit keeps two trainings from sharing a machine's memory.",
            template=_template("gpu"),
            limit=plan.gpu_slots,
            queues={"stages": plan.gpu_slots},
        ),
    ]


def _aws_pools(account: Infrastructure) -> list[Pool]:
    common = {
        "cluster": account.cluster,
        "region": account.region,
        "log_group": account.log_group,
        "execution_role_arn": account.execution_role,
        f"{account.prefect_secret_name.lower()}_secret_arn": account.prefect_secret,
    }
    gpus = account.max_gpu_instances
    return [
        Pool(
            name=ECS_CPU,
            type="ecs",
            description="Runs, and the stages that need no GPU, as Fargate tasks.",
            template=_template(
                ECS_CPU,
                **common,
                image=account.cpu_image,
                task_role_arn=account.run_role,
                subnets=list(account.subnets),
                security_groups=list(account.security_groups),
                assign_public_ip="ENABLED" if account.public_addresses else "DISABLED",
            ),
            queues={"runs": MANY, "stages": MANY},
        ),
        Pool(
            name=ECS_GPU,
            type="ecs",
            description="Training as ECS tasks on GPU instances, which come with the first task and go after the last.",
            template=_template(
                ECS_GPU,
                **common,
                image=account.gpu_image,
                task_role_arn=account.train_role,
                capacity_provider=account.capacity_provider,
            ),
            limit=2 * gpus,  # the groups of first and of later attempts
            queues={"stages": 2 * gpus},
        ),
        Pool(
            name=EC2_GPU,
            description="Training as processes of workers on GPU instances, as many as deployments/scaler.py asks for.",
            template=_template("gpu"),
            limit=gpus,
            queues={"stages": gpus},
        ),
    ]


def _template(name: str, **defaults: object) -> dict[str, Any]:
    """The job template in pools/<name>.json; an account's values become defaults of its variables."""
    template: dict[str, Any] = json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8"))
    for variable, value in defaults.items():
        template["variables"]["properties"][variable]["default"] = value
    return template


async def _apply_pool(client: PrefectClient, wanted: Pool) -> list[str]:
    try:
        pool = await client.read_work_pool(wanted.name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(
                name=wanted.name,
                type=wanted.type,
                description=wanted.description,
                base_job_template=wanted.template,
                concurrency_limit=wanted.limit,
            )
        )
        return [f"created work pool {wanted.name}"]
    if pool.base_job_template == wanted.template and pool.concurrency_limit == wanted.limit:
        return []
    await client.update_work_pool(
        wanted.name, WorkPoolUpdate(base_job_template=wanted.template, concurrency_limit=wanted.limit)
    )
    return [f"updated work pool {wanted.name}"]


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
