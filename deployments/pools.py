"""Work pools, their queues and the job templates of their runs. Pools that are not ours are never changed.

Our pools are marked in their descriptions. A run occupies a process while it waits for its stages. Runs and stages
therefore take their slots from different queues: with a common limit, waiting runs could hold every slot and the stages
that they wait for would never start.

Command, environment, image, roles, network, secrets and working folder are written into a pool's job template. A
deployment or a run can only set the template's variables, and Prefect's server refuses any others. A login that can
change pools and deployments can still run code of its own; docs/deploy.md describes the limits of that.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
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
from prefect.utilities.processutils import command_to_string
from prefect.utilities.templating import apply_values
from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.aws.runtime.jobs import ENGINE as AWS_ENGINE
from deployments.aws.runtime.jobs import EXECUTE, FOLDER, account_environment, ecs_environment, train_environment
from deployments.plan import CPU, EC2_GPU, ECS_CPU, ECS_GPU, GPU, PREFIX, Plan
from tasks.core.errors import InputError
from tasks.running.gpu import GPU_LIMIT

TEMPLATES = Path(__file__).parent / "pools"
# By default a worker starts one process to prepare a folder and then a second one in it, and each imports Prefect: 4 s
# of two cores for every stage. The folder needs no preparation here.
ENGINE = command_to_string([sys.executable, "-m", "prefect.engine"])


def local_template(name: str, plan: Plan) -> dict[str, Any]:
    """The template of a pool whose runs are processes of a worker on one's own machine. Raises InputError."""
    return _template(name, plan_environment(plan), ENGINE)


def ecs_cpu_template(plan: Plan, account: Infrastructure) -> dict[str, Any]:
    """The template of the Fargate tasks. Raises InputError."""
    return _template(
        ECS_CPU,
        {**account_environment(account), **ecs_environment(account, plan.gpu_pool), **plan_environment(plan)},
        EXECUTE,
        **_of_tasks(account),
        image=account.cpu_image,
        task_role_arn=account.run_role,
        subnets=list(account.subnets),
        security_groups=list(account.security_groups),
        assign_public_ip="ENABLED" if account.public_addresses else "DISABLED",
    )


def ecs_gpu_template(plan: Plan, account: Infrastructure) -> dict[str, Any]:
    """The template of the tasks on GPU instances. Raises InputError."""
    template = _template(
        ECS_GPU,
        {
            **account_environment(account),
            **ecs_environment(account, plan.gpu_pool),
            **train_environment(),
            **plan_environment(plan),
        },
        EXECUTE,
        **_of_tasks(account),
        image=account.gpu_image,
        task_role_arn=account.train_role,
    )
    providers = [account.capacity_provider, account.capacity_provider_again]
    template["variables"]["properties"]["capacity_provider"] |= {"default": providers[0], "enum": providers}
    return template


def ec2_gpu_template(plan: Plan, account: Infrastructure) -> dict[str, Any]:
    """The template of the processes of a worker on a GPU instance. Raises InputError."""
    environment = {**account_environment(account), **train_environment(), **plan_environment(plan)}
    template = _template(GPU, environment, AWS_ENGINE)
    template["job_configuration"]["working_dir"] = FOLDER
    return template


def plan_environment(plan: Plan) -> dict[str, str]:
    """The plan as environment variables of every run; they replace those of its worker."""
    values = {
        "SPACEPORT_WORKSPACE": plan.workspace,
        "SPACEPORT_PAGES_URL": plan.pages_url,
        "SPACEPORT_HOURLY_COST_USD": None if plan.hourly_cost_usd is None else str(plan.hourly_cost_usd),
    }
    return {name: value for name, value in values.items() if value is not None}


def _of_tasks(account: Infrastructure) -> dict[str, object]:
    secrets = dict.fromkeys(("prefect_api_key_secret_arn", "prefect_api_auth_string_secret_arn"))
    return {
        **secrets,
        f"{account.prefect_secret_name.lower()}_secret_arn": account.prefect_secret,
        "cluster": account.cluster,
        "region": account.region,
        "log_group": account.log_group,
        "execution_role_arn": account.execution_role,
    }


def _template(name: str, environment: Mapping[str, str], command: str, **fixed: object) -> dict[str, Any]:
    """The template of a pool in pools/, with each fixed value in the placeholder of its name."""
    for said, value in {**environment, **fixed}.items():
        if "{{" in str(value):
            raise InputError(f"{said} is {value!r}: Prefect would replace what is in its braces; use a name without.")
    template: dict[str, Any] = json.loads((TEMPLATES / f"{name.removeprefix(PREFIX)}.json").read_text(encoding="utf-8"))
    job = apply_values(template["job_configuration"], fixed, remove_notset=False)
    assert isinstance(job, dict)
    job["command"] = command
    job["env"] = {**job["env"], **environment}
    return {**template, "job_configuration": job}


POOLS = (CPU, GPU)
LABEL = "Spaceport: "  # the descriptions of our pools begin with it
MANY = 200  # stages at the same time on Fargate, which has a quota of its own


NOT_ENDED = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=sorted(TERMINAL_STATES))))


class Pool(BaseModel):
    """The desired state of a work pool."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str = "process"
    description: str
    template: dict[str, Any]
    limit: int | None = None  # runs at the same time
    queues: dict[str, int]  # name -> runs at the same time


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
    """The pools of a plan: processes on one's own machines, or ECS and EC2."""
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
    unlabelled = wanted.description.removeprefix(LABEL)  # our pools' descriptions before they had the label
    return description.startswith(LABEL.strip()) or description.casefold() == unlabelled.casefold()


async def remove_former_pools(client: PrefectClient, plan: Plan) -> list[str]:
    """Remove our pools with the names of earlier releases, which had no prefix; returns the changes as sentences.

    Call it when the deployments use the new pools. A pool stays while a run in it has not ended or a deployment uses
    it: its runs need a worker, and only a person knows whether they are still wanted. The sentences name such pools.
    Runs that have ended stay in the list of runs without the name of their pool.
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
            using = f"deployment {deployments[0].name}" if deployments else f"runs that have not ended ({len(runs)})"
            changes.append(
                f"left work pool {name}, now {wanted.name}, which has {using}: cancel them, or let them end with: "
                f"prefect worker start --pool {name}"
            )
            continue
        await client.delete_work_pool(name)
        changes.append(f"removed work pool {name}, now {wanted.name}")
    return changes


async def apply_gpu_limit(client: PrefectClient, plan: Plan) -> list[str]:
    """Create or correct the limit of simultaneous trainings on GPUs; returns the changes as sentences.

    Runs in terminals respect it too. An AWS account needs no limit: each task and each instance has a GPU of its own.
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
