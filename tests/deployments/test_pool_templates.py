"""Limits of a run's choice: its pool sets the command, the environment and the folder it starts in."""

import asyncio
from typing import Any

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.utilities.templating import find_placeholders
from prefect.workers.process import ProcessJobConfiguration
from prefect_aws.workers.ecs_worker import ECSJobConfiguration

from deployments import pools
from deployments.apply import FILE
from deployments.aws.runtime.jobs import job_variables
from deployments.local.state import WORKERS
from deployments.plan import Plan
from deployments.pools import ENGINE, Pool, planned_pools
from tasks.core.errors import InputError
from tasks.core.stages import PARTS, STAGES
from tests.deployments.accounts import ROLE, account

LOCAL = Plan(workspace="/workspace", hourly_cost_usd=0.5)
AWS = Plan(workspace="s3-bucket/spaceport-workspace", infrastructure=account())
POOLS = {pool.name: pool for plan in (LOCAL, AWS) for pool in planned_pools(plan)}
FORBIDDEN: dict[str, Any] = {
    "command": "id",
    "env": {"LD_PRELOAD": "/tmp/x.so"},
    "env.LD_PRELOAD": "/tmp/x.so",  # Prefect takes a dot for a level
    "working_dir": "/tmp",
    "stream_output": False,
    "name": "x",
    "labels": {"prefect.io/flow-run-id": "another run's"},
    "image": "evil/image",
    "family": "spaceport-run-x",
    "task_role_arn": f"{ROLE}/execution",
    "execution_role_arn": f"{ROLE}/admin",
    "subnets": ["subnet-9"],
    "security_groups": ["sg-9"],
    "cluster": "another",
    "region": "eu-north-1",
    "log_group": "/another",
    "prefect_api_auth_string_secret_arn": "another",
    "task_definition": {},
    "task_run_request": {},
}


@flow(name="pool-template-probe")
def probe() -> None:
    """Never run."""


@pytest.fixture(params=sorted(POOLS))
def pool(request: pytest.FixtureRequest) -> Pool:
    return POOLS[str(request.param)]


def test_every_variable_is_declared_and_bounded(pool: Pool) -> None:
    variables = pool.template["variables"]
    assert variables["additionalProperties"] is False, "Prefect would take any other"
    declared = variables["properties"]
    assert {each.name for each in find_placeholders(pool.template["job_configuration"])} == set(declared)
    assert not set(declared) & set(FORBIDDEN)
    for name, schema in declared.items():
        bounded = "enum" in schema or "pattern" in schema or {"minimum", "maximum"} <= set(schema)
        assert bounded, f"{name} may be anything"


def test_every_deployment_has_a_pool_with_its_queue_and_a_worker() -> None:
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    planned = {pool.name: pool for pool in planned_pools(LOCAL)}
    for entry in entries:
        named = entry["work_pool"]
        assert named["name"] in planned, f"{entry['name']}: no pool {named['name']} in deployments/pools.py"
        assert named["work_queue_name"] in planned[named["name"]].queues, entry["name"]
    assert set(planned) == set(pools.POOLS) == set(WORKERS.values())


@pytest.fixture(scope="module")
def deployed(prefect_server: None) -> dict[str, Any]:
    """A deployment in a pool of each template: pool -> id."""
    made = {}
    with get_client(sync_client=True) as client:
        for pool in POOLS.values():
            name = f"template-{pool.name}"
            create_pool(client, name, pool)
            made[pool.name] = client.create_deployment(
                client.create_flow(probe), name, work_pool_name=name, entrypoint="x.py:probe"
            )
    return made


def create_pool(client: SyncPrefectClient, name: str, pool: Pool) -> None:
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=pool.type, base_job_template=pool.template))
    except ObjectAlreadyExists:
        return


def test_a_run_or_a_deployment_that_chooses_it_is_refused(pool: Pool, deployed: dict[str, Any]) -> None:
    refused = "Additional properties are not allowed"
    with get_client(sync_client=True) as client:
        for variable, value in FORBIDDEN.items():
            with pytest.raises(PrefectHTTPStatusError, match=refused):
                client.create_flow_run_from_deployment(deployed[pool.name], job_variables={variable: value})
        run = client.create_flow_run_from_deployment(deployed[pool.name])
        chosen = {"env": FORBIDDEN["env"]}
        with pytest.raises(PrefectHTTPStatusError, match=refused):
            client.update_flow_run(run.id, job_variables=chosen)
        # Prefect looks at a deployment's own when it makes a run of it.
        client.update_deployment(deployed[pool.name], DeploymentUpdate(job_variables=chosen))
        with pytest.raises(PrefectHTTPStatusError, match=refused):
            client.create_flow_run_from_deployment(deployed[pool.name])
        client.update_deployment(deployed[pool.name], DeploymentUpdate(job_variables={}))


@pytest.mark.parametrize(
    ("pool_name", "chosen"),
    [
        ("spaceport-cpu", {"dispatch": "sfm; id"}),
        ("spaceport-ecs-cpu", {"stage": "../x"}),
        ("spaceport-ecs-cpu", {"cpu": 3}),
        ("spaceport-ecs-cpu", {"disk_gb": 100000}),
        ("spaceport-ecs-gpu", {"capacity_provider": "somebody's"}),
    ],
)
def test_what_it_may_choose_has_bounds(pool_name: str, chosen: dict[str, Any], deployed: dict[str, Any]) -> None:
    with get_client(sync_client=True) as client, pytest.raises(PrefectHTTPStatusError, match="Validation failed"):
        client.create_flow_run_from_deployment(deployed[pool_name], job_variables=chosen)


def test_our_own_choices_are_taken(deployed: dict[str, Any]) -> None:
    again = {"capacity_provider": account().capacity_provider_again}
    ours = [
        ("spaceport-cpu", {"dispatch": "sfm,train,compress"}),
        ("spaceport-cpu", {"dispatch": ""}),
        ("spaceport-ecs-gpu", again),
    ]
    ours += [job_variables(flow, "ecs-gpu") for flow in ("reconstruct", *STAGES, *PARTS)]
    with get_client(sync_client=True) as client:
        for pool_name, chosen in ours:
            run = client.create_flow_run_from_deployment(deployed[pool_name], job_variables=chosen)
            assert run.job_variables == chosen


@pytest.mark.parametrize("name", ["spaceport-cpu", "spaceport-gpu"])
def test_a_worker_starts_what_the_pool_says(name: str) -> None:
    chosen = {"dispatch": "sfm,train"} if name == "spaceport-cpu" else {}
    job = asyncio.run(ProcessJobConfiguration.from_template_and_values(POOLS[name].template, chosen))
    assert job.command == ENGINE
    assert job.working_dir is None
    assert job.env == {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "SPACEPORT_DISPATCH": chosen.get("dispatch", ""),
        "SPACEPORT_WORKSPACE": "/workspace",
        "SPACEPORT_HOURLY_COST_USD": "0.5",
    }


def test_a_task_costs_what_its_size_does() -> None:
    _, chosen = job_variables("sfm", "ecs-gpu")
    job = asyncio.run(ECSJobConfiguration.from_template_and_values(POOLS["spaceport-ecs-cpu"].template, chosen))
    assert float(str(job.env["SPACEPORT_HOURLY_COST_USD"])) == pytest.approx(chosen["price"])
    without = asyncio.run(ECSJobConfiguration.from_template_and_values(POOLS["spaceport-ecs-cpu"].template, {}))
    assert "SPACEPORT_HOURLY_COST_USD" not in without.env


def test_a_value_that_prefect_would_change_is_refused() -> None:
    with pytest.raises(InputError, match=r"SPACEPORT_WORKSPACE is '/data/\{\{ x \}\}'"):
        planned_pools(Plan(workspace="/data/{{ x }}"))
