"""As many instances for pool ec2-gpu as it has runs: `python -m deployments.scaler`, a service of the account.

It never ends an instance. One that has had nothing to do for a while ends itself (deployments/gpu_host.py), and all are
protected from being ended by anybody else, so that nobody's training is.

Spot instances come first. A group of them waits for as long as there are none, so what it has not got after two minutes
is asked for on demand, in a group of its own.
"""

import logging
import sys
import threading
import time
from dataclasses import dataclass
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
SPOT_PATIENCE_SECONDS = 120.0  # a spot instance that is to be had is launched within seconds
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


@dataclass(frozen=True)
class Group:
    """An auto scaling group as it is now."""

    name: str
    desired: int
    launched: int  # instances that there are, working or on their way
    most: int

    @classmethod
    def read(cls, autoscaling: Any, name: str) -> "Group":
        """Raises SpaceportError when it is not there."""
        found = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        if not found:
            raise SpaceportError(f"There is no auto scaling group {name}: deploy deployments/aws again.")
        launched = [each for each in found[0]["Instances"] if not each["LifecycleState"].startswith("Terminat")]
        return cls(name, found[0]["DesiredCapacity"], len(launched), found[0]["MaxSize"])


class Scaler:
    """Asks for instances: in the first group, and in the second for those that the first does not get for a while."""

    def __init__(
        self, autoscaling: Any, group: str, on_demand: str | None, patience_seconds: float = SPOT_PATIENCE_SECONDS
    ) -> None:
        """`on_demand`: the second group; None where the first one is on demand itself."""
        self._autoscaling, self._group, self._on_demand = autoscaling, group, on_demand
        self._patience_seconds = patience_seconds
        self._short_since: float | None = None

    def look(self, runs: int) -> dict[str, int]:
        """Ask for an instance a run, up to the first group's limit; gives what was asked for, by group."""
        first = Group.read(self._autoscaling, self._group)
        second = None if self._on_demand is None else Group.read(self._autoscaling, self._on_demand)
        wanted = min(runs, first.most) - (0 if second is None else second.desired)
        if second is not None and self._is_short(first):
            # Given back first, so that what spot has later does not come on top.
            changes = [(first, first.launched), (second, second.desired + max(0, wanted - first.launched))]
        else:
            changes = [(first, max(first.desired, wanted))]
        asked = {group.name: desired for group, desired in changes if desired != group.desired}
        for name, desired in asked.items():
            self._autoscaling.set_desired_capacity(
                AutoScalingGroupName=name, DesiredCapacity=desired, HonorCooldown=False
            )
        return asked

    def _is_short(self, group: Group) -> bool:
        """Whether instances that were asked for have been missing for as long as we wait for them."""
        if group.launched >= group.desired:
            self._short_since = None
            return False
        now = time.monotonic()
        self._short_since = now if self._short_since is None else self._short_since
        return now - self._short_since >= self._patience_seconds


def serve() -> None:
    """Look every few seconds until SIGTERM. Raises InputError when there is no account to look at."""
    account = served_account()
    stopping = threading.Event()
    on_end_signal(stopping.set)
    scaler = Scaler(boto3.client("autoscaling"), account.ec2_group, account.ec2_group_on_demand)
    while not stopping.wait(LOOK_SECONDS):
        try:
            asked = scaler.look(runs_due())
        except (HTTPError, BotoCoreError, ClientError) as error:  # Prefect or AWS is away; the next look is soon
            log.warning("cannot look (%s)", error)
            continue
        for group, desired in asked.items():
            log.info("%s: asked for %d instances", group, desired)


if __name__ == "__main__":
    sys.exit(exit_status_of(serve))
