"""Pools and automations beside other people's, on a server that is shared."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.events.schemas.automations import EventTrigger as EventTriggerOfClient
from prefect.exceptions import ObjectNotFound
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.types._datetime import now

from deployments.apply import apply_all, apply_pools_only
from deployments.automations import AWS_STAGE_HOURS, HEARTBEAT, HUNG_STAGE, STAGE_HOURS, always, zombies
from deployments.plan import Plan
from deployments.pools import POOLS
from tasks.core.errors import InputError
from tests.deployments.accounts import account

PLAN = Plan(workspace="/workspace")


def on_the_server(call: str, *arguments: Any) -> Any:
    async def ask() -> Any:
        async with get_client() as client:
            return await getattr(client, call)(*arguments)

    return asyncio.run(ask())


@pytest.fixture
def no_pools(prefect_server: None) -> Iterator[None]:
    """Whatever the test makes is removed; there is none when it begins."""
    yield
    for name in POOLS:
        try:
            on_the_server("delete_work_pool", name)
        except ObjectNotFound:
            continue


@pytest.mark.usefixtures("no_pools")
def test_a_pool_of_other_people_is_left_alone() -> None:
    theirs: WorkPool = on_the_server(
        "create_work_pool", WorkPoolCreate(name="gpu", type="process", description="Our A100s", concurrency_limit=8)
    )
    with pytest.raises(InputError, match=r"'gpu' that is not Spaceport's.* 'Our A100s'.*--description 'Spaceport:'"):
        asyncio.run(apply_pools_only(PLAN))
    assert on_the_server("read_work_pool", "gpu") == theirs
    with pytest.raises(ObjectNotFound):
        on_the_server("read_work_pool", "cpu")

    on_the_server("update_work_pool", "gpu", WorkPoolUpdate(description="Spaceport:"))  # as the sentence says
    assert "updated work pool gpu" in asyncio.run(apply_pools_only(PLAN))


@pytest.mark.usefixtures("no_pools")
def test_our_own_are_known_again() -> None:
    assert "created work pool gpu" in asyncio.run(apply_pools_only(PLAN))
    assert asyncio.run(apply_pools_only(PLAN)) == []
    before_the_label = WorkPoolUpdate(description="Runs, and the stages that need no GPU.")
    on_the_server("update_work_pool", "cpu", before_the_label)
    assert asyncio.run(apply_pools_only(PLAN)) == ["updated work pool cpu"]
    on_the_server("update_work_pool", "cpu", WorkPoolUpdate(description="Spaceport: what an operator adds"))
    assert asyncio.run(apply_pools_only(PLAN)) == ["updated work pool cpu"]


@pytest.mark.usefixtures("no_pools")
def test_pools_and_deployments_of_an_older_release_are_corrected() -> None:
    """Those whose runs could choose their command and environment."""
    asyncio.run(apply_all(PLAN))
    free = {"command": {"type": "string"}, "env": {"type": "object"}}
    template = {
        "job_configuration": {name: f"{{{{ {name} }}}}" for name in free},
        "variables": {"type": "object", "properties": free},
    }
    for name in POOLS:
        on_the_server("update_work_pool", name, WorkPoolUpdate(base_job_template=template))
    for name in ("reconstruct", "train"):
        deployment = on_the_server("read_deployment_by_name", f"{name}/{name}")
        older = DeploymentUpdate(version="0.0.9", job_variables={"command": "id", "env": {"SPACEPORT_WORKSPACE": "/x"}})
        on_the_server("update_deployment", deployment.id, older)

    changes = asyncio.run(apply_all(PLAN))
    assert {"updated work pool cpu", "updated work pool gpu"} <= set(changes)
    assert {"updated deployment reconstruct/reconstruct", "updated deployment train/train"} <= set(changes)
    for name, chosen in (("reconstruct", {"dispatch": "sfm,train,compress"}), ("train", {})):
        assert on_the_server("read_deployment_by_name", f"{name}/{name}").job_variables == chosen
    for name in POOLS:
        job = on_the_server("read_work_pool", name).base_job_template["job_configuration"]
        assert job["env"]["SPACEPORT_WORKSPACE"] == "/workspace"
    assert asyncio.run(apply_all(PLAN)) == []


def test_a_hung_stage_of_an_account_is_ended_within_a_day() -> None:
    """Heartbeats do not save it, and a stage that ended or waits for a machine is left alone."""
    in_account = PLAN.model_copy(update={"infrastructure": account()})
    for plan, hours in ((in_account, AWS_STAGE_HOURS), (PLAN, STAGE_HOURS)):
        [stages] = [each for each in always(plan) if each.name == HUNG_STAGE]
        assert isinstance(stages.trigger, EventTriggerOfClient)
        assert stages.trigger.within == timedelta(hours=hours)
        assert stages.trigger.after == {"prefect.flow-run.Running"}
        assert HEARTBEAT not in stages.trigger.expect
        assert {"prefect.flow-run.Completed", "prefect.flow-run.AwaitingRetry"} <= stages.trigger.expect
    assert AWS_STAGE_HOURS <= 24


@pytest.mark.parametrize(
    ("flow", "tags", "ours"),
    [
        ("train", ("spaceport", "stage"), True),
        ("reconstruct", ("spaceport",), True),
        ("train", (), False),
        ("train", ("another-team",), False),
        ("fit", ("spaceport",), False),
    ],
)
def test_automations_know_our_runs_by_flow_and_tag(flow: str, tags: tuple[str, ...], ours: bool) -> None:
    trigger = EventTrigger.model_validate(zombies().trigger.model_dump(mode="json"))
    related = [
        {"prefect.resource.id": "prefect.flow.x", "prefect.resource.role": "flow", "prefect.resource.name": flow}
    ]
    related += [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in tags]
    event = ReceivedEvent.model_validate(
        {
            "id": uuid4(),
            "event": "prefect.flow-run.heartbeat",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"},
            "related": related,
            "occurred": now("UTC"),
            "received": now("UTC"),
        }
    )
    assert trigger.covers(event) is ours
