"""The deployments of prefect.yaml, with a plan's values filled in, on a Prefect server.

Prefect's own ways do not fit here. `prefect deploy` fills in neither a plan's pool nor the folder of another machine's
image, and starts one process a call. `flow.deploy` resumes a deployment that an operator has paused, and removes the
limit that was set in the UI. This module changes what prefect.yaml says and leaves the rest as it is: schedules that
were made in the UI, default parameters, a pause. Entries that it does not know are refused, so that none is ignored.
"""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.jobs import FOLDER, job_variables
from deployments.plan import REPOSITORY, Plan
from tasks.core.errors import InputError

FILE = Path(__file__).with_name("prefect.yaml")
KNOWN = {"name", "entrypoint", "description", "tags", "work_pool", "schedules", "parameters", "concurrency_limit"}
TIMES = {"cron", "day_or", "interval", "anchor_date", "rrule", "timezone"}  # when a schedule makes a run


class Specification(BaseModel):
    """One deployment, in the words of Prefect's API. What is None stays as it is on the server."""

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
        """Changes whenever anything here does; shown in Prefect's UI."""
        digest = hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
        return f"{importlib.metadata.version('spaceport')}+{digest[:8]}"


def specifications(plan: Plan, file: Path = FILE) -> list[Specification]:
    """Every deployment of prefect.yaml. Imports the flows, which takes seconds. Raises InputError."""
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
    """An entry of `schedules`, in which prefect.yaml has the times beside the rest."""
    times = {name: value for name, value in entry.items() if name in TIMES}
    rest = {name: value for name, value in entry.items() if name not in TIMES}
    return DeploymentScheduleCreate.model_validate({"schedule": times, **rest})


async def apply_deployment(client: PrefectClient, wanted: Specification) -> list[str]:
    """Create or correct the deployment unless it is there in this version; says what changed."""
    full_name = f"{wanted.flow_name}/{wanted.name}"
    present: DeploymentResponse | None
    try:
        present = await client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        present = None
    if present is not None and present.version == wanted.version:
        return []
    # Not as a dump: `interval` and its like stay what they are, for the client to write.
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
