"""Pools of an AWS account on a real Prefect server, and what prefect-aws's own worker makes of them on moto."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.ec2.utils import generate_instance_identity_document
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.observers import ecs as observers
from prefect_aws.workers.ecs_worker import ECSWorker

from deployments.apply import apply_all
from deployments.plan import Plan
from tasks.core.stages import PARTS, STAGES
from tests.deployments.accounts import CLUSTER, account
from tests.support.aws_server import AwsServer, aws_server
from tests.support.patience import STALL_SECONDS

EVENTS_QUEUE = "spaceport-ecs-events"
FITS_MOTO = {"memory": 4096}  # moto's instances have 7482 MiB, whatever their type
REF = {"uri": "s3://spaceport-results/workspace/stages/x/y", "digest": "0" * 64}
CONTEXT = {"run": "meadow", "workspace": "s3-bucket/spaceport-workspace"}
PARAMETERS: dict[str, dict[str, Any]] = {
    "train": {"scene": {**REF, "capture": "meadow", "cameras": 3, "points": 100}, "options": {}, "context": CONTEXT},
    "sfm": {
        "photos": {**REF, "capture": "meadow", "usable": 3, "rejected": 0},
        "options": {},
        "image_size": 1600,
        "context": CONTEXT,
    },
}


@pytest.fixture(scope="module")
def aws(prefect_server: None) -> Iterator[AwsServer]:
    """An account with a GPU instance in its cluster, and the plan applied to a Prefect server."""
    with aws_server() as server, pytest.MonkeyPatch.context() as patch:
        variables = {
            **server.environment,
            "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": EVENTS_QUEUE,
            "PREFECT_INTEGRATIONS_AWS_ECS_WORKER_CREATE_TASK_RUN_MAX_ATTEMPTS": "1",
            "PREFECT_TEST_LEAK": "the worker's own",
        }
        for name, value in variables.items():
            patch.setenv(name, value)
        server.client("ecs").create_cluster(clusterName="spaceport")
        server.client("sqs").create_queue(QueueName=EVENTS_QUEUE)
        ec2 = boto3.resource("ec2", endpoint_url=server.endpoint)
        image = server.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for instance in ec2.create_instances(ImageId=image, MinCount=3, MaxCount=3, InstanceType="g4dn.xlarge"):
            document = json.dumps(generate_instance_identity_document(instance))
            server.client("ecs").register_container_instance(cluster="spaceport", instanceIdentityDocument=document)
        created = asyncio.run(apply_all(plan(server)))
        assert "created work pool spaceport-ecs-gpu" in created
        yield server


async def start(deployment: str, **job_variables: object) -> FlowRun:
    async with get_client() as client:
        found = await client.read_deployment_by_name(f"{deployment}/{deployment}")
        return await client.create_flow_run_from_deployment(
            found.id, parameters=PARAMETERS[deployment], job_variables=job_variables
        )


async def submit(pool: str, run: FlowRun) -> FlowRun:
    """Let prefect-aws's worker take what waits in the pool, and return the run as it is then."""
    async with ECSWorker(work_pool_name=pool, create_pool_if_not_found=False) as worker:
        await worker.get_and_submit_flow_runs()
    async with get_client() as client:
        return await client.read_flow_run(run.id)


async def end_of(run: FlowRun) -> FlowRun:
    async with get_client() as client, asyncio.timeout(STALL_SECONDS):
        while (now := await client.read_flow_run(run.id)).state is None or not now.state.is_final():
            await asyncio.sleep(0.1)
        return now


def task_of(aws: AwsServer, run: FlowRun) -> dict[str, Any]:
    """The run's task on ECS, with its definition under `definition`."""
    ecs = aws.client("ecs")
    arns = ecs.list_tasks(cluster="spaceport")["taskArns"]
    for task in ecs.describe_tasks(cluster="spaceport", tasks=arns, include=["TAGS"])["tasks"]:
        tags = {each["key"]: each["value"] for each in task["tags"]}
        if tags["prefect.io/flow-run-id"] == str(run.id):
            definition = ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])["taskDefinition"]
            return {**task, "definition": definition}
    raise AssertionError(f"no task for {run.name} among {len(arns)}")


def plan(aws: AwsServer) -> Plan:
    """Of an account whose subnets are those that moto has from the start."""
    subnets = tuple(each["SubnetId"] for each in aws.client("ec2").describe_subnets()["Subnets"])
    return Plan(workspace=account().workspace, infrastructure=account(subnets=subnets))


def test_a_second_time_changes_nothing(aws: AwsServer) -> None:
    assert asyncio.run(apply_all(plan(aws))) == []


@pytest.mark.usefixtures("aws")
def test_deployments_go_to_the_accounts_pools() -> None:
    async def pools() -> dict[str, Any]:
        async with get_client() as client:
            names = ("reconstruct", *STAGES, *PARTS)
            return {name: await client.read_deployment_by_name(f"{name}/{name}") for name in names}

    found = asyncio.run(pools())
    assert {name: each.work_pool_name for name, each in found.items()} == {
        **dict.fromkeys(("reconstruct", "photos", "sfm", "cells", "compress", "publish"), "spaceport-ecs-cpu"),
        **dict.fromkeys(("train", "cell"), "spaceport-ecs-gpu"),
    }
    assert found["reconstruct"].job_variables["dispatch"] == "sfm,train,compress"
    assert found["train"].job_variables == {}


@pytest.mark.usefixtures("aws")
def test_blocks_hold_no_keys() -> None:
    credentials = AwsCredentials.load("spaceport")
    assert credentials.region_name == account().region
    assert credentials.aws_access_key_id is None
    assert credentials.aws_secret_access_key is None
    bucket = S3Bucket.load("spaceport-workspace")
    assert (bucket.bucket_name, bucket.bucket_folder) == ("spaceport-results", "workspace")


def test_training_asks_for_a_gpu_and_a_place_for_it(aws: AwsServer) -> None:
    run = asyncio.run(start("train", **FITS_MOTO))
    assert asyncio.run(submit("spaceport-ecs-gpu", run)).state_type == StateType.PENDING
    task = task_of(aws, run)
    container = task["definition"]["containerDefinitions"][0]
    assert container["resourceRequirements"] == [{"type": "GPU", "value": "1"}]
    assert container["image"] == account().gpu_image
    assert container["stopTimeout"] == 115
    assert container["mountPoints"][0]["containerPath"] == "/scratch"
    assert container["readonlyRootFilesystem"] is True
    assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert container["linuxParameters"]["tmpfs"][0]["containerPath"] == "/tmp"
    assert container["dockerSecurityOptions"] == ["no-new-privileges"]
    assert task["capacityProviderName"] == "spot"
    assert not task["launchType"], "with a launch type, ECS would not wait for an instance"
    assert task["overrides"]["taskRoleArn"] == account().train_role
    override = task["overrides"]["containerOverrides"][0]
    guarded = ["python", "-m", "deployments.aws.runtime.unless_ended", "prefect", "flow-run", "execute"]
    assert override["command"] == guarded, "a task that waited long may find that its run was given up"
    environment = {each["name"]: each["value"] for each in override["environment"]}
    assert environment["PREFECT_API_URL"] == account().prefect_api_url, "not where the worker found the server"
    assert environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert environment["SPACEPORT_WORKSPACE"] == "s3-bucket/spaceport-workspace"
    assert environment["SPACEPORT_DISPATCH"] == "", "a stage's own run computes it"
    secrets = {each["name"]: each["valueFrom"] for each in container["secrets"]}
    assert secrets == {"PREFECT_API_AUTH_STRING": account().prefect_secret}
    assert "PREFECT_API_AUTH_STRING" not in environment


def test_other_stages_run_on_fargate(aws: AwsServer) -> None:
    run = asyncio.run(start("sfm"))
    assert asyncio.run(submit("spaceport-ecs-cpu", run)).state_type == StateType.PENDING
    task = task_of(aws, run)
    definition = task["definition"]
    assert (definition["cpu"], definition["memory"]) == ("4096", "16384")
    assert definition["ephemeralStorage"] == {"sizeInGiB": 100}
    assert definition["family"] == "spaceport-run-sfm"
    assert task["launchType"] == "FARGATE"
    container = definition["containerDefinitions"][0]
    assert "resourceRequirements" not in container
    assert container["readonlyRootFilesystem"] is True
    assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert [mount["containerPath"] for mount in container["mountPoints"]] == ["/scratch", "/tmp"]
    assert container["logConfiguration"]["options"]["awslogs-group"] == "/spaceport/runs"
    assert container["logConfiguration"]["options"]["awslogs-stream-prefix"] == "sfm"
    environment = {each["name"]: each["value"] for each in task["overrides"]["containerOverrides"][0]["environment"]}
    assert environment["SPACEPORT_DISPATCH"] == ""
    assert json.loads(environment["SPACEPORT_JOB_VARIABLES_AGAIN"]) == {"train": {"capacity_provider": "on-demand"}}


@pytest.mark.usefixtures("aws")
def test_no_task_and_no_failure_is_a_failure() -> None:
    """What ECS answers to a task that fits on no instance: the real memory of the pool is more than moto's have."""
    run = asyncio.run(start("train"))
    ended = asyncio.run(submit("spaceport-ecs-gpu", run))
    assert ended.state_type == StateType.CRASHED
    assert ended.state is not None
    assert "no tasks or failures were returned" in (ended.state.message or "")


@pytest.mark.parametrize(
    ("stop_code", "containers"),
    [
        ("EssentialContainerExited", [{"name": "prefect", "exitCode": 137}]),
        ("TaskFailedToStart", []),
    ],
)
def test_a_task_that_stops_crashes_its_run(aws: AwsServer, stop_code: str, containers: list[dict[str, Any]]) -> None:
    run = asyncio.run(start("train", **FITS_MOTO))
    asyncio.run(submit("spaceport-ecs-gpu", run))
    task = task_of(aws, run)
    event = {
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "detail": {
            "clusterArn": CLUSTER,
            "taskArn": task["taskArn"],
            "taskDefinitionArn": task["taskDefinitionArn"],
            "lastStatus": "STOPPED",
            "stopCode": stop_code,
            "stoppedReason": "Host EC2 terminated",
            "containers": containers,
        },
    }
    sqs = aws.client("sqs")
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=EVENTS_QUEUE)["QueueUrl"], MessageBody=json.dumps(event))

    async def observe() -> FlowRun:
        observer = observers.EcsObserver()
        observer.event_handlers = observers.ecs_observer.event_handlers
        watching = asyncio.create_task(observer.run())
        try:
            return await end_of(run)
        finally:
            watching.cancel()

    ended = asyncio.run(observe())
    assert ended.state_type == StateType.CRASHED
