"""Pools and automations beside other people's, on a server that is shared."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.events.schemas.automations import EventTrigger as EventTriggerOfClient
from prefect.exceptions import ObjectNotFound
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.states import Cancelled
from prefect.types._datetime import now

from deployments.apply import FILE, Specification, apply, apply_all, apply_pools_only, specifications
from deployments.automations import (
    AWS_STAGE_HOURS,
    FORMER_NAMES,
    HEARTBEAT,
    HUNG_STAGE,
    STAGE_HOURS,
    always,
    zombies,
)
from deployments.plan import Plan
from deployments.pools import POOLS
from tasks.core.errors import InputError
from tasks.running.gpu import GPU_LIMIT
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
        "create_work_pool",
        WorkPoolCreate(name="spaceport-gpu", type="process", description="Our A100s", concurrency_limit=8),
    )
    with pytest.raises(
        InputError, match=r"'spaceport-gpu' that is not Spaceport's.* 'Our A100s'.*--description 'Spaceport:'"
    ):
        asyncio.run(apply_pools_only(PLAN))
    assert on_the_server("read_work_pool", "spaceport-gpu") == theirs
    with pytest.raises(ObjectNotFound):
        on_the_server("read_work_pool", "spaceport-cpu")

    on_the_server("update_work_pool", "spaceport-gpu", WorkPoolUpdate(description="Spaceport:"))  # as the sentence says
    assert "updated work pool spaceport-gpu" in asyncio.run(apply_pools_only(PLAN))


@pytest.mark.usefixtures("no_pools")
def test_our_own_are_known_again() -> None:
    assert "created work pool spaceport-gpu" in asyncio.run(apply_pools_only(PLAN))
    assert asyncio.run(apply_pools_only(PLAN)) == []
    before_the_label = WorkPoolUpdate(description="Runs, and the stages that need no GPU.")
    on_the_server("update_work_pool", "spaceport-cpu", before_the_label)
    assert asyncio.run(apply_pools_only(PLAN)) == ["updated work pool spaceport-cpu"]
    on_the_server("update_work_pool", "spaceport-cpu", WorkPoolUpdate(description="Spaceport: what an operator adds"))
    assert asyncio.run(apply_pools_only(PLAN)) == ["updated work pool spaceport-cpu"]


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
    assert {"updated work pool spaceport-cpu", "updated work pool spaceport-gpu"} <= set(changes)
    assert {"updated deployment reconstruct/reconstruct", "updated deployment train/train"} <= set(changes)
    for name, chosen in (("reconstruct", {"dispatch": "sfm,train,compress"}), ("train", {})):
        assert on_the_server("read_deployment_by_name", f"{name}/{name}").job_variables == chosen
    for name in POOLS:
        job = on_the_server("read_work_pool", name).base_job_template["job_configuration"]
        assert job["env"]["SPACEPORT_WORKSPACE"] == "/workspace"
    assert asyncio.run(apply_all(PLAN)) == []


@pytest.fixture
def former_pools(no_pools: None) -> Iterator[None]:
    """Those of earlier releases: `cpu` is ours, `gpu` is other people's."""
    ours = WorkPoolCreate(name="cpu", type="process", description="Spaceport: runs, and the stages that need no GPU.")
    on_the_server("create_work_pool", ours)
    on_the_server("create_work_pool", WorkPoolCreate(name="gpu", type="process", description="Our A100s"))
    yield
    for name in ("cpu", "gpu"):
        try:
            on_the_server("delete_work_pool", name)
        except ObjectNotFound:
            continue


@pytest.mark.usefixtures("former_pools")
def test_deployments_move_to_the_new_pools_and_our_former_ones_go() -> None:
    asyncio.run(apply_pools_only(PLAN))
    asyncio.run(apply(PLAN, former_deployments()))
    deployment = on_the_server("read_deployment_by_name", "sfm/sfm")
    assert deployment.work_pool_name == "cpu"

    assert "removed work pool cpu, now spaceport-cpu" in asyncio.run(apply_all(PLAN))
    moved = on_the_server("read_deployment_by_name", "sfm/sfm")
    assert (moved.id, moved.work_pool_name, moved.work_queue_name) == (deployment.id, "spaceport-cpu", "stages")
    with pytest.raises(ObjectNotFound):
        on_the_server("read_work_pool", "cpu")
    assert on_the_server("read_work_pool", "gpu").description == "Our A100s"
    assert asyncio.run(apply_all(PLAN)) == []


def former_deployments() -> list[Specification]:
    """As an earlier release had them."""
    former = {"work_pool_name": "cpu", "job_variables": {}}
    return [each.model_copy(update=former) for each in specifications(PLAN)]


@pytest.mark.usefixtures("former_pools")
def test_a_former_pool_stays_while_a_run_in_it_has_not_ended() -> None:
    async def waiting_run() -> tuple[UUID, UUID]:
        async with get_client() as client:
            flow_id = await client.create_flow_from_name("reconstruct")
            deployment_id = await client.create_deployment(flow_id, "older", work_pool_name="cpu")
            return deployment_id, (await client.create_flow_run_from_deployment(deployment_id)).id

    def left() -> str:
        [said] = [change for change in asyncio.run(apply_all(PLAN)) if change.startswith("left")]
        assert said.startswith("left work pool cpu, now spaceport-cpu")
        assert "prefect worker start --pool cpu" in said
        return said

    deployment_id, run_id = asyncio.run(waiting_run())
    assert "which has deployment older" in left()
    on_the_server("update_deployment", deployment_id, DeploymentUpdate(work_pool_name="spaceport-cpu"))
    assert "which has runs that have not ended (1)" in left()
    on_the_server("set_flow_run_state", run_id, Cancelled(), True)
    assert asyncio.run(apply_all(PLAN)) == ["removed work pool cpu, now spaceport-cpu"]
    on_the_server("delete_deployment", deployment_id)


@pytest.mark.usefixtures("no_pools")
def test_the_gpu_has_a_limit_of_its_own() -> None:
    two = PLAN.model_copy(update={"gpu_slots": 2})
    asyncio.run(apply_all(PLAN))
    assert "updated concurrency limit spaceport-gpu: 2 at once" in asyncio.run(apply_all(two))
    assert on_the_server("read_global_concurrency_limit_by_name", GPU_LIMIT).limit == 2
    assert asyncio.run(apply_all(two)) == []


@pytest.mark.usefixtures("no_pools")
def test_the_automations_of_an_earlier_release_are_replaced() -> None:
    asyncio.run(apply_all(PLAN))
    on_the_server("create_automation", zombies().model_copy(update={"name": FORMER_NAMES[0]}))
    assert asyncio.run(apply_all(PLAN)) == [f"removed automation {FORMER_NAMES[0]!r}"]
    for automation in always(PLAN):
        [present] = on_the_server("read_automations_by_name", automation.name)
        assert present.description


@pytest.mark.usefixtures("no_pools")
def test_schedules_of_the_file_run_and_those_of_the_ui_stay(tmp_path: Path) -> None:
    asyncio.run(apply_all(PLAN))
    sfm = on_the_server("read_deployment_by_name", "sfm/sfm")
    hourly = IntervalSchedule(interval=timedelta(hours=1))
    on_the_server("create_deployment_schedules", sfm.id, [(hourly, True)])
    on_the_server("update_deployment", sfm.id, DeploymentUpdate(version="0.0.9", paused=True))

    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    [reconstruct] = [entry for entry in content["deployments"] if entry["name"] == "reconstruct"]
    reconstruct["schedules"] = [{"cron": "0 3 * * *", "timezone": "Europe/Berlin", "slug": "nightly", "active": False}]
    reconstruct["parameters"] = {"photos": "/photos"}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    wanted = specifications(PLAN, tmp_path / "prefect.yaml")
    assert "updated deployment reconstruct/reconstruct" in asyncio.run(apply(PLAN, wanted))
    scheduled = on_the_server("read_deployment_by_name", "reconstruct/reconstruct")
    [schedule] = scheduled.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert (schedule.slug, schedule.active) == ("nightly", False)
    assert scheduled.parameters == {"photos": "/photos"}
    assert asyncio.run(apply(PLAN, wanted)) == []

    sfm = on_the_server("read_deployment_by_name", "sfm/sfm")
    assert sfm.version != "0.0.9"
    assert [each.schedule.interval for each in sfm.schedules] == [hourly.interval]
    assert sfm.paused
    on_the_server("update_deployment", sfm.id, DeploymentUpdate(schedules=[], paused=False))


def test_entries_of_the_file_that_nothing_would_read_are_refused(tmp_path: Path) -> None:
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    content["deployments"][0]["triggers"] = [{"enabled": True}]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(InputError, match="deployment reconstruct has triggers, which"):
        specifications(PLAN, tmp_path / "prefect.yaml")


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
