"""Watch the runs of an AWS account: `python -m deployments.aws.runtime.watch`, a service of the account.

It reports to CloudWatch how every run has ended, since a process that has died cannot, and stops tasks whose run has
ended without them.
"""

import logging
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
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
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from deployments.aws.runtime.orphans import stop_orphans
from deployments.aws.runtime.service import exit_status_of, on_end_signal, served_account
from deployments.ends import Ends
from deployments.every_run import every_run
from deployments.settings import DeploymentSettings
from tasks.reporting.metrics import tell_run
from tasks.running.settings import use_settings

LOOK_SECONDS = 30.0
CRASH_SECONDS = 300.0  # in which a crashed run may go back into its queue, as when its machine is taken away
RUN = FlowFilter(name=FlowFilterName(any_=["reconstruct"]))
TOLD_STATES = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED)
TOLD = "spaceport.told"  # label of a run: the id of the final state that was reported

log = logging.getLogger("spaceport.watch")


class Watch:
    """Reports each end once, also across restarts."""

    def __init__(self, client: SyncPrefectClient, crash_seconds: float = CRASH_SECONDS) -> None:
        self._client, self._crash_after = client, timedelta(seconds=crash_seconds)
        self._ends = Ends(self._ended)

    def tell_ends(self) -> None:
        """Report every run that has completed, failed or crashed. One that is cancelled has not failed."""
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
        """Report an end, unless that was done already or the run has continued meanwhile."""
        if run.state is None or run.state.id != end or run.labels.get(TOLD) == str(end):
            return
        # The label first: a watch that ends in between reports the end never instead of twice.
        self._client.update_flow_run_labels(run.id, {TOLD: str(end)})
        tell_run(completed=run.state.is_completed())

    def _ended(self, since: datetime) -> list[FlowRun]:
        wanted = FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TOLD_STATES))),
            end_time=FlowRunFilterEndTime(after_=since),
        )
        return every_run(self._client, FlowRunSort.END_TIME_DESC, flow_filter=RUN, flow_run_filter=wanted)


def look(watch: Watch, ecs: Any, cluster: str, client: SyncPrefectClient) -> None:
    """Do both jobs once. A failure of one does not keep the other from its work, and the next look is soon."""
    for job in (watch.tell_ends, lambda: stop_orphans(ecs, cluster, client)):
        try:
            job()
        except (HTTPError, BotoCoreError, ClientError) as error:
            log.warning("cannot look (%s)", error)


def serve() -> None:
    """Look every half minute until SIGTERM. Raises InputError when there is no account to look at."""
    account = served_account(use_settings(DeploymentSettings()))
    stopping = threading.Event()
    on_end_signal(stopping.set)
    with get_client(sync_client=True) as client:
        watch, ecs = Watch(client), boto3.client("ecs")
        while not stopping.wait(LOOK_SECONDS):
            look(watch, ecs, account.cluster, client)


if __name__ == "__main__":
    sys.exit(exit_status_of(serve))
