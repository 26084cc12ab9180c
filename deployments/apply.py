"""Apply a plan to a Prefect server: pools, blocks, the deployments of prefect.yaml, automations.

`spaceport up` does this for its own server, and `PREFECT_API_URL=… SPACEPORT_WORKSPACE=… python -m deployments.apply`
for another server. `SPACEPORT_INFRASTRUCTURE=/spaceport/infrastructure` applies the pools and blocks of an AWS account.

Prefect's own ways of deploying do not fit here. `prefect deploy` fills in neither a plan's pool nor the folder of
another machine's image. `flow.deploy` resumes a deployment that an operator has paused, and removes a limit that was
set in the UI. This module changes what prefect.yaml specifies and keeps everything else: schedules that were made in
the UI, default parameters, a pause. It refuses entries that it does not know, so that none is silently ignored.
"""

import asyncio
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict

from deployments.automations import apply_automations
from deployments.aws.runtime.infrastructure import infrastructure_named
from deployments.aws.runtime.jobs import FOLDER, job_variables
from deployments.blocks import apply_workspace_blocks, workspace_name
from deployments.plan import REPOSITORY, Plan
from deployments.pools import apply_gpu_limit, apply_pools, remove_former_pools
from deployments.settings import DeploymentSettings
from tasks.core.errors import InputError

FILE = Path(__file__).with_name("prefect.yaml")
KNOWN = {"name", "entrypoint", "description", "tags", "work_pool", "schedules", "parameters", "concurrency_limit"}
TIMES = {"cron", "day_or", "interval", "anchor_date", "rrule", "timezone"}  # times of a schedule


class Specification(BaseModel):
    """One deployment, with the field names of Prefect's API. Fields that are None stay unchanged on the server."""

    model_config = ConfigDict(frozen=True)

    flow_name: str
    name: str
    entrypoint: str
    description: str | None
    tags: list[str]
    work_pool_name: str
    work_queue_name: str
    job_variables: dict[str, Any]
    parameter_openapi_schema: dict[str, Any]
    pull_steps: list[dict[str, Any]]
    parameters: dict[str, Any] | None = None
    schedules: list[DeploymentScheduleCreate] | None = None
    concurrency_limit: int | None = None

    @property
    def version(self) -> str:
        """A version that changes whenever anything here changes; shown in Prefect's UI."""
        digest = hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
        return f"{importlib.metadata.version('spaceport')}+{digest[:8]}"


def specifications(plan: Plan, file: Path = FILE) -> list[Specification]:
    """Read every deployment of prefect.yaml. Imports the flows, which takes seconds. Raises InputError."""
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    return [_specification(entry, plan) for entry in entries]


def _specification(entry: dict[str, Any], plan: Plan) -> Specification:
    if unknown := sorted(entry.keys() - KNOWN):
        raise InputError(
            f"prefect.yaml: deployment {entry['name']} has {', '.join(unknown)}, which `spaceport up` and "
            f"`python -m deployments.apply` do not read; they read {', '.join(sorted(KNOWN))}."
        )
    flow: Flow[..., Any] = load_flow_from_entrypoint(str(REPOSITORY / entry["entrypoint"]), use_placeholder_flow=False)
    pool = entry["work_pool"]
    pool_name, queue = pool["name"], pool["work_queue_name"]
    variables: dict[str, Any] = dict(pool.get("job_variables", {}))
    folder = str(REPOSITORY)
    if plan.infrastructure is not None:
        pool_name, chosen = job_variables(flow.name, plan.gpu_pool)
        variables |= chosen
        folder = FOLDER
    if plan.dispatch is not None and flow.name == "reconstruct":
        variables["dispatch"] = ",".join(plan.dispatch)
    return Specification(
        flow_name=flow.name,
        name=entry["name"],
        entrypoint=entry["entrypoint"],
        description=entry.get("description", flow.description),
        tags=entry["tags"],
        work_pool_name=pool_name,
        work_queue_name=queue,
        job_variables=variables,
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": folder}}],
        parameters=entry.get("parameters"),
        schedules=[_schedule(each) for each in entry["schedules"]] if "schedules" in entry else None,
        concurrency_limit=entry.get("concurrency_limit"),
    )


def _schedule(entry: dict[str, Any]) -> DeploymentScheduleCreate:
    """Convert an entry of `schedules`; prefect.yaml has the times next to the other fields."""
    times = {name: value for name, value in entry.items() if name in TIMES}
    rest = {name: value for name, value in entry.items() if name not in TIMES}
    return DeploymentScheduleCreate.model_validate({"schedule": times, **rest})


async def apply_deployment(client: PrefectClient, wanted: Specification) -> list[str]:
    """Create or correct the deployment, unless the server has this version. Returns what changed."""
    full_name = f"{wanted.flow_name}/{wanted.name}"
    present: DeploymentResponse | None
    try:
        present = await client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        present = None
    if present is not None and present.version == wanted.version:
        return []
    # Not dumped to JSON: the client itself serialises `interval` and similar types.
    fields = {name: value for name in Specification.model_fields if (value := getattr(wanted, name)) is not None}
    del fields["flow_name"]
    fields |= {"version": wanted.version, "enforce_parameter_schema": True}
    if present is None:
        await client.create_deployment(await client.create_flow_from_name(wanted.flow_name), **fields)
        return [f"created deployment {full_name}"]
    if wanted.schedules is not None:
        fields["schedules"] = [each.model_dump(exclude_unset=True) for each in wanted.schedules]
    del fields["name"]
    await client.update_deployment(present.id, DeploymentUpdate.model_validate(fields))
    return [f"updated deployment {full_name}"]


async def apply(plan: Plan, wanted: Sequence[Specification]) -> list[str]:
    """Create or correct everything but the pools on the server of PREFECT_API_URL. Returns what changed."""
    async with get_client() as client:
        changes = await apply_workspace_blocks(client, plan)
        for specification in wanted:
            changes += await apply_deployment(client, specification)
        changes += await apply_automations(client, plan)
        return changes + await apply_gpu_limit(client, plan) + await remove_former_pools(client, plan)


async def apply_pools_only(plan: Plan) -> list[str]:
    """Create or correct the pools, so that workers can start. Returns what changed."""
    async with get_client() as client:
        return await apply_pools(client, _as_runs_say(plan))


async def apply_all(plan: Plan) -> list[str]:
    """Apply the plan to the server of PREFECT_API_URL. Returns what changed."""
    return await apply_pools_only(plan) + await apply(plan, planned_deployments(plan))


def planned_deployments(plan: Plan) -> list[Specification]:
    """Return the deployments of a plan, ready to apply. Imports the flows, which takes seconds."""
    return specifications(_as_runs_say(plan))


def _as_runs_say(plan: Plan) -> Plan:
    return plan.model_copy(update={"workspace": workspace_name(plan)})


def plan_of(settings: DeploymentSettings) -> Plan:
    """Return the plan that the variables `SPACEPORT_…` describe. Raises InputError."""
    account = infrastructure_named(settings.infrastructure)
    return Plan(
        workspace=settings.workspace if account is None else account.workspace,
        pages_url=settings.pages_url,
        hourly_cost_usd=settings.hourly_cost_usd,
        dispatch=tuple(sorted(settings.dispatch)) or None,
        cpu_slots=settings.cpu_slots,
        gpu_slots=settings.gpu_slots,
        notify=settings.notify,
        infrastructure=account,
        gpu_pool=settings.gpu_pool,
    )


if __name__ == "__main__":
    for change in asyncio.run(apply_all(plan_of(DeploymentSettings()))) or ["nothing to change"]:
        print(change)
