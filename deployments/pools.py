"""Work pools and their queues. A pool of ours says so in its description; any other one is left as it is.

A run holds a process while it waits for its stages. Runs and stages therefore take their slots from different queues:
with a common limit, waiting runs could hold every slot and the stages they wait for would never start.
"""

from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.plan import EC2_GPU, ECS_CPU, ECS_GPU, Plan
from deployments.pool_templates import ec2_gpu_template, ecs_cpu_template, ecs_gpu_template, local_template
from tasks.core.errors import InputError

POOLS = ("cpu", "gpu")
LABEL = "Spaceport: "  # how the descriptions of our pools begin
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
    """Create or correct all pools and their queues; says what changed.

    Raises InputError, before anything is changed, when a pool of one of these names is not ours, or when the plan has
    a value that cannot be written into a pool.
    """
    wanted = planned_pools(plan)
    present = {pool.name: await _present(client, pool) for pool in wanted}
    changes: list[str] = []
    for pool in wanted:
        changes += await _apply_pool(client, pool, present[pool.name])
        for queue, limit in pool.queues.items():
            changes += await _apply_queue(client, pool.name, queue, limit)
    return changes


def planned_pools(plan: Plan) -> list[Pool]:
    """The pools of a plan: processes on machines of somebody's own, or ECS and EC2."""
    if plan.infrastructure is not None:
        return _aws_pools(plan, plan.infrastructure)
    return [
        Pool(
            name="cpu",
            description=f"{LABEL}runs, and the stages that need no GPU.",
            template=local_template("cpu", plan),
            queues={"runs": plan.run_slots, "stages": plan.cpu_slots},
        ),
        Pool(
            name="gpu",
            description=f"{LABEL}training. Its limit keeps two trainings from sharing a machine's memory.",
            template=local_template("gpu", plan),
            limit=plan.gpu_slots,
            queues={"stages": plan.gpu_slots},
        ),
    ]


def _aws_pools(plan: Plan, account: Infrastructure) -> list[Pool]:
    gpus = account.max_gpu_instances
    return [
        Pool(
            name=ECS_CPU,
            type="ecs",
            description=f"{LABEL}runs, and the stages that need no GPU, as Fargate tasks.",
            template=ecs_cpu_template(plan, account),
            queues={"runs": MANY, "stages": MANY},
        ),
        Pool(
            name=ECS_GPU,
            type="ecs",
            description=LABEL
            + "training as ECS tasks on GPU instances, which come with the first task and go after the last.",
            template=ecs_gpu_template(plan, account),
            limit=2 * gpus,  # the groups of first and of later attempts
            queues={"stages": 2 * gpus},
        ),
        Pool(
            name=EC2_GPU,
            description=LABEL
            + "training as processes of workers on GPU instances, as many as the account's scaler asks for.",
            template=ec2_gpu_template(plan, account),
            limit=gpus,
            queues={"stages": gpus},
        ),
    ]


async def _present(client: PrefectClient, wanted: Pool) -> WorkPool | None:
    """The pool of that name as it is; None where there is none. Raises InputError when it is not ours."""
    try:
        pool = await client.read_work_pool(wanted.name)
    except ObjectNotFound:
        return None
    description = pool.description or ""
    unlabelled = wanted.description.removeprefix(LABEL)  # what our pools said before they had the label
    if description.startswith(LABEL.strip()) or description.casefold() == unlabelled.casefold():
        return pool
    raise InputError(
        f"The server at {client.api_url} has a work pool {wanted.name!r} that is not Spaceport's: its description is "
        f"{description!r}. Use another server, or hand the pool over with: prefect work-pool update {wanted.name} "
        f"--description {LABEL.strip()!r}"
    )


async def _apply_pool(client: PrefectClient, wanted: Pool, present: WorkPool | None) -> list[str]:
    if present is None:
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
    if (present.base_job_template, present.concurrency_limit, present.description) == (
        wanted.template,
        wanted.limit,
        wanted.description,
    ):
        return []
    await client.update_work_pool(
        wanted.name,
        WorkPoolUpdate(
            base_job_template=wanted.template, concurrency_limit=wanted.limit, description=wanted.description
        ),
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
