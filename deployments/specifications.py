"""The deployments of prefect.yaml, with a plan's values filled in, on a Prefect server."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.jobs import FOLDER, job_variables
from deployments.plan import REPOSITORY, Plan

FILE = Path(__file__).with_name("prefect.yaml")


class Specification(BaseModel):
    """One deployment, in the words of Prefect's API."""

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

    @property
    def version(self) -> str:
        """Changes whenever anything here does; shown in Prefect's UI."""
        digest = hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
        return f"{importlib.metadata.version('spaceport')}+{digest[:8]}"


def specifications(plan: Plan) -> list[Specification]:
    """Every deployment of prefect.yaml. Imports the flows, which takes seconds."""
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    return [_specification(entry, plan) for entry in entries]


def _specification(entry: dict[str, Any], plan: Plan) -> Specification:
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
        description=flow.description,
        tags=entry["tags"],
        work_pool_name=pool_name,
        work_queue_name=queue,
        job_variables=variables,
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": folder}}],
    )


async def apply_deployment(client: PrefectClient, wanted: Specification) -> list[str]:
    """Create or replace the deployment unless it is there in this version; says what changed."""
    full_name = f"{wanted.flow_name}/{wanted.name}"
    present: DeploymentResponse | None
    try:
        present = await client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        present = None
    if present is not None and present.version == wanted.version:
        return []
    flow_id = await client.create_flow_from_name(wanted.flow_name)
    await client.create_deployment(
        flow_id, version=wanted.version, enforce_parameter_schema=True, **wanted.model_dump(exclude={"flow_name"})
    )
    return [f"{'created' if present is None else 'updated'} deployment {full_name}"]
