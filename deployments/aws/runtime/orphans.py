"""Stop ECS tasks whose run has ended without them.

A run that was given up while its task waited for a machine has crashed, and another attempt works in its place. Its
task would keep asking for a machine, and cost money once it has one.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from botocore.exceptions import BotoCoreError, ClientError
from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Failed

GRACE = timedelta(seconds=90)  # in which a process ends after its run, and Prefect's worker stops what is cancelled
RUN_TAG = "prefect.io/flow-run-id"  # that Prefect's worker puts at each task
AT_ONCE = 100  # the most that ECS describes
STOPPED = "The run has ended"

T = TypeVar("T")

log = logging.getLogger("spaceport.watch")


@dataclass(frozen=True)
class Task:
    """A task of a run that has not been stopped yet."""

    arn: str
    run: UUID
    has_started: bool  # its container may be at work


def stop_orphans(ecs: Any, cluster: str, client: SyncPrefectClient, grace: timedelta = GRACE) -> list[Task]:
    """Stop every task of a run that has been in a final state for `grace`. Returns them."""
    tasks = list(_tasks(ecs, cluster))
    latest = datetime.now(UTC) - grace
    ended = {
        run.id: run
        for ids in _batches([task.run for task in tasks])
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=AT_ONCE)
        if run.state is not None and run.state.is_final() and run.state.timestamp <= latest
    }
    stopped = []
    for task in tasks:
        run = ended.get(task.run)
        if run is None or (task.has_started and _may_live(run)):
            continue
        try:
            if task.has_started:
                _end_for_good(client, run)
            ecs.stop_task(cluster=cluster, task=task.arn, reason=STOPPED)
        except (HTTPError, ObjectNotFound, BotoCoreError, ClientError) as error:  # the others are still stopped
            log.warning("%s of run %s could not be stopped (%s)", task.arn, task.run, error)
            continue
        log.info("stopped %s: run %s is %s", task.arn, task.run, run.state_name)
        stopped.append(task)
    return stopped


def _tasks(ecs: Any, cluster: str) -> Iterator[Task]:
    """The tasks of runs, those that wait for a machine included."""
    listed = ecs.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus="RUNNING")
    arns = [arn for page in listed for arn in page["taskArns"]]
    for some in _batches(arns):
        for task in ecs.describe_tasks(cluster=cluster, tasks=some, include=["TAGS"])["tasks"]:
            run = {each["key"]: each["value"] for each in task.get("tags", [])}.get(RUN_TAG)
            if run is not None:
                yield Task(task["taskArn"], UUID(run), task["lastStatus"] not in ("PROVISIONING", "PENDING"))


def _batches(items: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]


def _may_live(run: FlowRun) -> bool:
    """Whether a process at work may still complete its crashed run.

    Its heartbeats were missed, as when the server was away. A stage's run has been followed by another attempt; the
    run of a capture has not.
    """
    return run.state is not None and run.state.is_crashed() and run.parent_task_run_id is None


def _end_for_good(client: SyncPrefectClient, run: FlowRun) -> None:
    """Keep the process that is stopped now from putting its crashed run back into the queue.

    At SIGTERM `prefect flow-run execute` does so with a crashed run, and with no other that has ended.
    """
    assert run.state is not None
    if run.state.is_crashed():
        message = f"{run.state.message or 'It crashed.'} Its task was still there and has been stopped."
        client.set_flow_run_state(run.id, Failed(name="Crashed", message=message), force=True)
