"""Watch the runs of an AWS account: `python -m deployments.aws.runtime.watch`, a service of the account.

It reports to CloudWatch how every run has ended, since a process that has died cannot. It also stops ECS tasks whose
run has already ended. A run that was given up while its task waited for a machine has crashed and been replaced by
another attempt; its task would keep asking for a machine, and cost money once it has one.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Failed

from deployments.aws.runtime.service import exit_status_of, on_end_signal, served_account
from deployments.runs import Ends, every_run
from deployments.settings import DeploymentSettings
from tasks.reporting.metrics import tell_run
from tasks.running.settings import use_settings

GRACE = timedelta(seconds=90)  # for a process to end after its run, and for Prefect's worker to stop a cancelled one
RUN_TAG = "prefect.io/flow-run-id"  # Prefect's worker sets it on each task
AT_ONCE = 100  # the most that ECS describes
STOPPED = "The run has ended"

T = TypeVar("T")

log = logging.getLogger("spaceport.watch")


@dataclass(frozen=True)
class Task:
    """A task of a run that has not been stopped yet."""

    arn: str
    run: UUID
    has_started: bool  # its container may be running


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
    """Return the tasks of runs, including tasks that wait for a machine."""
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
    """Whether a running process may still complete its crashed run.

    Its heartbeats were missed, for example because the server was away. A stage's run has already been replaced by
    another attempt; the run of a capture has not.
    """
    return run.state is not None and run.state.is_crashed() and run.parent_task_run_id is None


def _end_for_good(client: SyncPrefectClient, run: FlowRun) -> None:
    """Keep the process that is being stopped from putting its crashed run back into the queue.

    On SIGTERM, `prefect flow-run execute` does so with a crashed run, but not with runs in other final states.
    """
    assert run.state is not None
    if run.state.is_crashed():
        message = f"{run.state.message or 'It crashed.'} Its task was still there and has been stopped."
        client.set_flow_run_state(run.id, Failed(name="Crashed", message=message), force=True)


LOOK_SECONDS = 30.0
CRASH_SECONDS = 300.0  # a crashed run may return to its queue within this time, as when its machine is reclaimed
RUN = FlowFilter(name=FlowFilterName(any_=["reconstruct"]))
TOLD_STATES = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED)
TOLD = "spaceport.told"  # label of a run: the id of the final state that was reported

log = logging.getLogger("spaceport.watch")


class Watch:
    """Reports the end of each run once, even across restarts."""

    def __init__(self, client: SyncPrefectClient, crash_seconds: float = CRASH_SECONDS) -> None:
        self._client, self._crash_after = client, timedelta(seconds=crash_seconds)
        self._ends = Ends(self._ended)

    def tell_ends(self) -> None:
        """Report every run that has completed, failed or crashed. A cancelled run does not count as failed."""
        for run in self._ends.due():
            assert run.state is not None
            if run.state.is_crashed() and datetime.now(UTC) - run.state.timestamp < self._crash_after:
                self._ends.put_off(run)
                continue
            try:
                self._tell(run.state.id, self._client.read_flow_run(run.id))
            except ObjectNotFound:  # it was deleted
                self._ends.settle(run)
            except HTTPError as error:
                log.warning("the end of run %s has to wait (%s)", run.id, error)
                self._ends.put_off(run)
            else:
                self._ends.settle(run)

    def _tell(self, end: UUID, run: FlowRun) -> None:
        """Report an end, unless it has been reported already or the run has continued since."""
        if run.state is None or run.state.id != end or run.labels.get(TOLD) == str(end):
            return
        # The label is set first: if this service dies in between, the end is reported never instead of twice.
        self._client.update_flow_run_labels(run.id, {TOLD: str(end)})
        tell_run(completed=run.state.is_completed())

    def _ended(self, since: datetime) -> list[FlowRun]:
        wanted = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TOLD_STATES))),
            end_time=FlowRunFilterEndTime(after_=since),
        )
        return every_run(self._client, FlowRunSort.END_TIME_DESC, flow_filter=RUN, flow_run_filter=wanted)


def look(watch: Watch, ecs: Any, cluster: str, client: SyncPrefectClient) -> None:
    """Do both jobs once. A failure of one job does not stop the other, and the next try is soon."""
    for job in (watch.tell_ends, lambda: stop_orphans(ecs, cluster, client)):
        try:
            job()
        except (HTTPError, BotoCoreError, ClientError) as error:
            log.warning("cannot look (%s)", error)


def serve() -> None:
    """Watch every half minute until SIGTERM. Raises InputError if there is no account."""
    account = served_account(use_settings(DeploymentSettings()))
    stopping = threading.Event()
    on_end_signal(stopping.set)
    with get_client(sync_client=True) as client:
        watch, ecs = Watch(client), boto3.client("ecs")
        while not stopping.wait(LOOK_SECONDS):
            look(watch, ecs, account.cluster, client)


if __name__ == "__main__":
    sys.exit(exit_status_of(serve))
