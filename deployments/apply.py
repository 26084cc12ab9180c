"""Bring a Prefect server to a plan.

`spaceport up` does it for its own server; `PREFECT_API_URL=… SPACEPORT_WORKSPACE=… python -m deployments.apply` for
another one; with `SPACEPORT_INFRASTRUCTURE=/spaceport/infrastructure` for the pools and blocks of an AWS account.
"""

import asyncio
from collections.abc import Sequence

from prefect.client.orchestration import get_client

from deployments.automations import apply_automations
from deployments.aws.runtime.infrastructure import infrastructure_from_environment
from deployments.blocks import apply_workspace_blocks, workspace_name
from deployments.plan import Plan
from deployments.pools import apply_gpu_limit, apply_pools, remove_former_pools
from deployments.specifications import Specification, apply_deployment, specifications
from tasks.core.settings import Settings


async def apply(plan: Plan, wanted: Sequence[Specification]) -> list[str]:
    """Create or correct everything but the pools on the server of PREFECT_API_URL; says what changed."""
    async with get_client() as client:
        changes = await apply_workspace_blocks(client, plan)
        for specification in wanted:
            changes += await apply_deployment(client, specification)
        changes += await apply_automations(client, plan)
        return changes + await apply_gpu_limit(client, plan) + await remove_former_pools(client, plan)


async def apply_pools_only(plan: Plan) -> list[str]:
    """Create or correct the pools, so that workers can start; says what changed."""
    async with get_client() as client:
        return await apply_pools(client, _as_runs_say(plan))


async def apply_all(plan: Plan) -> list[str]:
    """Bring the server of PREFECT_API_URL to the plan; says what changed."""
    return await apply_pools_only(plan) + await apply(plan, planned_deployments(plan))


def planned_deployments(plan: Plan) -> list[Specification]:
    """The deployments of a plan, ready to apply. Imports the flows, which takes seconds."""
    return specifications(_as_runs_say(plan))


def _as_runs_say(plan: Plan) -> Plan:
    return plan.model_copy(update={"workspace": workspace_name(plan)})


def plan_from_environment() -> Plan:
    """The plan of the variables `SPACEPORT_…`."""
    settings = Settings.from_environment()
    account = infrastructure_from_environment()
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
    for change in asyncio.run(apply_all(plan_from_environment())) or ["nothing to change"]:
        print(change)
