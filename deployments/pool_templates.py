"""Job templates of the pools: what a run is started with, and the few values that it may choose.

Command, environment, image, roles, network, secrets and working folder are written into the pool. A template's
variables are all that a deployment or its run can set, and Prefect's server refuses others there. A login that can
change pools and deployments can still run code of its own: docs/deploy.md says what limits that.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.utilities.processutils import command_to_string
from prefect.utilities.templating import apply_values

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.aws.runtime.jobs import ENGINE as AWS_ENGINE
from deployments.aws.runtime.jobs import EXECUTE, FOLDER, account_environment, ecs_environment, train_environment
from deployments.plan import ECS_CPU, ECS_GPU, GPU, PREFIX, Plan
from tasks.core.errors import InputError

TEMPLATES = Path(__file__).parent / "pools"
# By default a worker starts one process to prepare a folder and then a second one in it, each of which imports Prefect:
# 4 s of two cores for every stage. The folder needs no preparation here.
ENGINE = command_to_string([sys.executable, "-m", "prefect.engine"])


def local_template(name: str, plan: Plan) -> dict[str, Any]:
    """The template of a pool whose runs are processes of a worker on a machine of one's own. Raises InputError."""
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
    """The plan as environment variables of every run, in place of those that its worker has."""
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
    """The template of a pool in pools/, with the fixed values in the places that are named after them."""
    for said, value in {**environment, **fixed}.items():
        if "{{" in str(value):
            raise InputError(f"{said} is {value!r}: Prefect would replace what is in its braces; use a name without.")
    template: dict[str, Any] = json.loads((TEMPLATES / f"{name.removeprefix(PREFIX)}.json").read_text(encoding="utf-8"))
    job = apply_values(template["job_configuration"], fixed, remove_notset=False)
    assert isinstance(job, dict)
    job["command"] = command
    job["env"] = {**job["env"], **environment}
    return {**template, "job_configuration": job}
