"""As many instances for pool ec2-gpu as it has runs: `python -m deployments.scaler`, a service of the account.

It only ever asks for more. An instance that has had nothing to do for a while ends itself (deployments/gpu_host.py),
and all are protected from being ended by anybody else, so that nobody's training is.
"""

import logging
import sys
import threading
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.types._datetime import now

from deployments.plan import EC2_GPU
from deployments.service import exit_status_of, on_end_signal, served_account
from tasks.core.errors import SpaceportError

LOOK_SECONDS = 15.0
WAITING_OR_AT_WORK = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
MOST_RUNS = 200

log = logging.getLogger("spaceport.scaler")


def runs_due() -> int:
    """Runs of the pool that a worker has or should have by now."""
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(WAITING_OR_AT_WORK))),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now("UTC")),
    )
    with get_client(sync_client=True) as client:
        pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[EC2_GPU]))
        return len(client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=pool, limit=MOST_RUNS))


def scale_out(autoscaling: Any, group: str, runs: int) -> int | None:
    """Ask for an instance a run, up to the group's limit; gives what was asked for, None when there was no need."""
    found = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    if not found:
        raise SpaceportError(f"There is no auto scaling group {group}: deploy deployments/aws again.")
    wanted: int = min(runs, found[0]["MaxSize"])
    if wanted <= found[0]["DesiredCapacity"]:
        return None
    autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=wanted, HonorCooldown=False)
    return wanted


def serve() -> None:
    """Look every few seconds until SIGTERM. Raises InputError when there is no account to look at."""
    account = served_account()
    stopping = threading.Event()
    on_end_signal(stopping.set)
    autoscaling = boto3.client("autoscaling")
    while not stopping.wait(LOOK_SECONDS):
        try:
            wanted = scale_out(autoscaling, account.ec2_group, runs_due())
        except (HTTPError, BotoCoreError, ClientError) as error:  # Prefect or AWS is away; the next look is soon
            log.warning("cannot look (%s)", error)
            continue
        if wanted is not None:
            log.info("asked for %d instances", wanted)


if __name__ == "__main__":
    sys.exit(exit_status_of(serve))
