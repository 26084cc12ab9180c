"""Work pools and their queues. A pool of ours says so in its description; any other one is left as it is.

A run holds a process while it waits for its stages. Runs and stages therefore take their slots from different queues:
with a common limit, waiting runs could hold every slot and the stages they wait for would never start.
"""

from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import TERMINAL_STATES, WorkPool
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.plan import CPU, EC2_GPU, ECS_CPU, ECS_GPU, GPU, PREFIX, Plan
from deployments.pool_templates import ec2_gpu_template, ecs_cpu_template, ecs_gpu_template, local_template
from tasks.core.errors import InputError
from tasks.running.gpu_slot import GPU_LIMIT

POOLS = (CPU, GPU)
LABEL = "Spaceport: "  # how the descriptions of our pools begin
MANY = 200  # stages at once on Fargate, which has a quota of its own


NOT_ENDED = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=sorted(TERMINAL_STATES))))


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
            name=CPU,
            description=f"{LABEL}runs, and the stages that need no GPU.",
            template=local_template(CPU, plan),
            queues={"runs": plan.run_slots, "stages": plan.cpu_slots},
        ),
        Pool(
            name=GPU,
            description=f"{LABEL}training. Its limit keeps two trainings from sharing a machine's memory.",
            template=local_template(GPU, plan),
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
    if _is_ours(pool, wanted):
        return pool
    raise InputError(
        f"The server at {client.api_url} has a work pool {wanted.name!r} that is not Spaceport's: its description is "
        f"{pool.description or ''!r}. Use another server, or hand the pool over with: prefect work-pool update "
        f"{wanted.name} --description {LABEL.strip()!r}"
    )


def _is_ours(pool: WorkPool, wanted: Pool) -> bool:
    description = pool.description or ""
    unlabelled = wanted.description.removeprefix(LABEL)  # the descriptions of our pools before they had the label
    return description.startswith(LABEL.strip()) or description.casefold() == unlabelled.casefold()


async def remove_former_pools(client: PrefectClient, plan: Plan) -> list[str]:
    """Remove our pools with the names of earlier releases, which had no prefix; says what changed and what is left.

    Call it when the deployments use the new pools. A pool stays while a run in it has not ended or a deployment uses
    it: its runs need a worker, and only a person knows whether they are still wanted. Runs that have ended stay in the
    list of runs without the name of their pool.
    """
    changes = []
    for wanted in planned_pools(plan):
        name = wanted.name.removeprefix(PREFIX)
        try:
            pool = await client.read_work_pool(name)
        except ObjectNotFound:
            continue
        if not _is_ours(pool, wanted):
            continue
        in_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[name]))
        runs = await client.read_flow_runs(flow_run_filter=NOT_ENDED, work_pool_filter=in_pool)
        deployments = await client.read_deployments(deployment_filter=DeploymentFilter(), work_pool_filter=in_pool)
        if runs or deployments:
            using = f"deployment {deployments[0].name}" if deployments else f"{len(runs)} runs that have not ended"
            changes.append(
                f"left work pool {name}, now {wanted.name}, which has {using}: cancel them, or let them end with: "
                f"prefect worker start --pool {name}"
            )
            continue
        await client.delete_work_pool(name)
        changes.append(f"removed work pool {name}, now {wanted.name}")
    return changes


async def apply_gpu_limit(client: PrefectClient, plan: Plan) -> list[str]:
    """Create or correct the limit of trainings on GPUs at once, which runs in terminals respect too; says what changed.

    In an AWS account there is none: each task and each instance has a GPU of its own.
    """
    if plan.infrastructure is not None:
        return []
    try:
        present = await client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    except ObjectNotFound:
        present = None
    if present is not None and present.limit == plan.gpu_slots:
        return []
    await client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, plan.gpu_slots)
    return [f"{'created' if present is None else 'updated'} concurrency limit {GPU_LIMIT}: {plan.gpu_slots} at once"]


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
