"""The watch over the runs of an AWS account: each end is reported once, and no task outlives its run."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.ec2.utils import generate_instance_identity_document
from prefect import flow, task
from prefect.cli.flow_run import _final_state_blocking_reschedule
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL
from prefect.states import AwaitingRetry, Cancelled, Completed, Crashed, Failed, Pending, Running, State

from deployments.aws.runtime import watch as service
from deployments.aws.runtime.unless_ended import ended
from deployments.aws.runtime.watch import RUN_TAG, Watch, stop_orphans
from deployments.aws.stacks.monitoring import NAMESPACE
from tests.support.aws_server import AwsServer, aws_server

AT_ONCE = timedelta(0)
CRASHED = Crashed(message="A worker took this run but did not start it within 15 minutes.")


@flow(name="reconstruct")
def reconstruct() -> None:
    """In place of the product's."""


@flow(name="train")
def train() -> None:
    """In place of a stage's."""


@task
def waiting() -> None:
    """In place of the task that waits for a stage's run."""


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as made:
        yield made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Reports to CloudWatch in one test: whether each run completed."""
    heard: list[bool] = []
    monkeypatch.setattr(service, "tell_run", lambda *, completed: heard.append(completed))
    return heard


@pytest.fixture
def watch(client: SyncPrefectClient, told: list[bool]) -> Watch:
    """A watch that has reported all earlier ends."""
    made = Watch(client, crash_seconds=0)
    made.tell_ends()
    told.clear()
    return made


def run_in(client: SyncPrefectClient, *states: State[Any], of: Any = reconstruct) -> FlowRun:
    run = client.create_flow_run(of)
    return move(client, run.id, *states)


def stage_run(client: SyncPrefectClient, *states: State[Any]) -> FlowRun:
    """A run that another run has made for its stage."""
    parent = client.create_task_run(waiting, run_in(client, Running()).id, dynamic_key="0")
    run = client.create_flow_run(train, parent_task_run_id=parent.id)
    return move(client, run.id, *states)


def move(client: SyncPrefectClient, run: UUID, *states: State[Any]) -> FlowRun:
    for state in states:
        client.set_flow_run_state(run, state, force=True)
    return client.read_flow_run(run)


def test_every_end_is_told_once_also_of_runs_that_died(
    client: SyncPrefectClient, watch: Watch, told: list[bool]
) -> None:
    for end in (Completed(), Failed(), CRASHED, Cancelled()):
        run_in(client, Running(), end)
    run_in(client, Running(), CRASHED, of=train)  # its run tells
    run_in(client, Running())
    watch.tell_ends()
    assert sorted(told) == [False, False, True]
    watch.tell_ends()
    Watch(client, crash_seconds=0).tell_ends()  # after a restart
    assert sorted(told) == [False, False, True]


def test_a_crashed_run_that_goes_on_has_not_failed(client: SyncPrefectClient, told: list[bool]) -> None:
    """As when its machine is taken away: the task's end crashes it, its process puts it back into the queue."""
    watch = Watch(client)
    watch.tell_ends()
    told.clear()
    run = run_in(client, Running(), CRASHED)
    watch.tell_ends()
    move(client, run.id, AwaitingRetry(), Running())
    watch.tell_ends()
    assert told == []
    move(client, run.id, Completed())
    watch.tell_ends()
    assert told == [True]


def test_a_failed_run_that_is_retried_tells_both_ends(
    client: SyncPrefectClient, watch: Watch, told: list[bool]
) -> None:
    run = run_in(client, Running(), Failed())
    watch.tell_ends()
    move(client, run.id, AwaitingRetry(), Running(), Completed())
    watch.tell_ends()
    assert told == [False, True]


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    """A cluster with an instance."""
    with aws_server() as server:
        ecs, ec2 = server.client("ecs"), boto3.resource("ec2", endpoint_url=server.endpoint, **KEYS)
        ecs.create_cluster(clusterName="spaceport")
        image = server.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        for instance in ec2.create_instances(ImageId=image, MinCount=2, MaxCount=2, InstanceType="g4dn.xlarge"):
            document = json.dumps(generate_instance_identity_document(instance))
            ecs.register_container_instance(cluster="spaceport", instanceIdentityDocument=document)
        ecs.register_task_definition(
            family="spaceport-run-train",
            containerDefinitions=[{"name": "prefect", "image": "gpu", "memory": 128, "cpu": 1}],
        )
        yield server


KEYS = {"region_name": "eu-central-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}


def task_for(aws: AwsServer, run: UUID | None) -> str:
    """The ARN of a task as Prefect's worker starts it."""
    tags = [] if run is None else [{"key": RUN_TAG, "value": str(run)}]
    started = aws.client("ecs").run_task(
        cluster="spaceport", taskDefinition="spaceport-run-train", launchType="EC2", tags=tags
    )
    return str(started["tasks"][0]["taskArn"])


class Provisioning:
    """moto places every task at once; on AWS one waits until there is an instance."""

    def __init__(self, ecs: Any) -> None:
        self._ecs = ecs

    def describe_tasks(self, **asked: Any) -> Any:
        answer = self._ecs.describe_tasks(**asked)
        for each in answer["tasks"]:
            each["lastStatus"] = "PROVISIONING"
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ecs, name)


def statuses(aws: AwsServer, *arns: str) -> list[str]:
    tasks = aws.client("ecs").describe_tasks(cluster="spaceport", tasks=list(arns))["tasks"]
    by_arn = {task["taskArn"]: task["desiredStatus"] for task in tasks}
    return [by_arn[arn] for arn in arns]


@pytest.mark.parametrize("end", [CRASHED, Cancelled(), Failed()], ids=lambda state: state.name)
def test_a_task_that_waits_for_a_machine_goes_with_its_run(
    client: SyncPrefectClient, aws: AwsServer, end: State[Any]
) -> None:
    ours, given_up = run_in(client, Pending(), of=train), run_in(client, Pending(), end, of=train)
    arns = [task_for(aws, run) for run in (ours.id, given_up.id, None)]
    ecs = Provisioning(aws.client("ecs"))
    assert stop_orphans(ecs, "spaceport", client) == [], "a process may end after its run"
    assert [each.arn for each in stop_orphans(ecs, "spaceport", client, AT_ONCE)] == [arns[1]]
    assert statuses(aws, *arns) == ["RUNNING", "STOPPED", "RUNNING"]
    now = client.read_flow_run(given_up.id).state
    assert now is not None
    assert (now.type, now.message) == (end.type, end.message), "its state says how it ended"
    assert stop_orphans(ecs, "spaceport", client, AT_ONCE) == []


def test_a_process_that_is_stopped_does_not_put_its_run_back(client: SyncPrefectClient, aws: AwsServer) -> None:
    """`prefect flow-run execute` does, at SIGTERM, with a run that has crashed, and with no other final state."""
    run = stage_run(client, Pending(), CRASHED)
    arn = task_for(aws, run.id)
    assert [each.arn for each in stop_orphans(aws.client("ecs"), "spaceport", client, AT_ONCE)] == [arn]
    state = client.read_flow_run(run.id).state
    assert state is not None
    assert (state.type, state.name) == (StateType.FAILED, "Crashed")
    assert str(CRASHED.message) in str(state.message)

    async def blocks() -> object:
        async with get_client() as asynchronous:
            return await _final_state_blocking_reschedule(asynchronous, run.id)

    assert asyncio.run(blocks()) is not None


def test_a_process_whose_heartbeats_were_missed_may_finish_its_run(client: SyncPrefectClient, aws: AwsServer) -> None:
    """The server was away for a while. The run of a capture has no other attempt."""
    arn = task_for(aws, run_in(client, Running(), CRASHED).id)
    assert stop_orphans(aws.client("ecs"), "spaceport", client, AT_ONCE) == []
    assert statuses(aws, arn) == ["RUNNING"]


def test_a_task_that_cannot_be_stopped_holds_up_no_other(client: SyncPrefectClient, aws: AwsServer) -> None:
    runs = [stage_run(client, Pending(), CRASHED) for _ in range(2)]
    arns = [task_for(aws, run.id) for run in runs]
    stopped = stop_orphans(Refusing(aws.client("ecs"), arns[0]), "spaceport", client, AT_ONCE)
    assert arns[1] in [each.arn for each in stopped]
    assert statuses(aws, *arns) == ["RUNNING", "STOPPED"]


class Refusing(Provisioning):
    """Throttled at one task."""

    def __init__(self, ecs: Any, refused: str) -> None:
        super().__init__(ecs)
        self._refused = refused

    def stop_task(self, **asked: Any) -> Any:
        if asked["task"] == self._refused:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "StopTask")
        return self._ecs.stop_task(**asked)


def test_ends_are_told_although_ecs_does_not_answer(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPACEPORT_METRICS", "emf")
    watch = Watch(client)
    watch.tell_ends()
    capsys.readouterr()
    run_in(client, Running(), Failed())
    service.look(watch, Away(), "spaceport", client)
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (line["RunsCompleted"], line["RunsFailed"]) == (0, 1)
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == NAMESPACE


class Away:
    """ECS while it throttles all calls."""

    def get_paginator(self, name: str) -> Any:
        raise ClientError({"Error": {"Code": "ThrottlingException"}}, name)


@pytest.mark.parametrize("state", [CRASHED, Cancelled(), Failed(), Completed(), Pending(), AwaitingRetry()])
def test_a_process_starts_unless_its_run_has_ended(
    client: SyncPrefectClient, state: State[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_in(client, Pending(), state, of=train)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run.id))
    assert ended(client) == (state.name if state.is_final() else None)


@pytest.mark.parametrize("end", [None, CRASHED])
def test_the_command_of_a_task_is_run_with_its_arguments_or_not_at_all(
    client: SyncPrefectClient, end: State[Any] | None
) -> None:
    run = run_in(client, Pending(), *([end] if end else []), of=train)
    done = subprocess.run(
        [sys.executable, "-m", "deployments.aws.runtime.unless_ended", "calendar", "1999", "2"],
        env={**os.environ, "PREFECT__FLOW_RUN_ID": str(run.id), "PREFECT_API_URL": str(PREFECT_API_URL.value())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("February 1999" in done.stdout) == (end is None)
    assert ("has ended already (Crashed)" in done.stdout) == (end is not None)
    state = client.read_flow_run(run.id).state
    assert state is not None
    assert state.type == (StateType.PENDING if end is None else StateType.CRASHED)
