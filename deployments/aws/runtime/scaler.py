"""Scale pool spaceport-ec2-gpu to one instance per run: `python -m deployments.aws.runtime.scaler`, a service.

It never ends an instance that has had a worker. An idle instance ends itself (deployments/aws/runtime/gpu_host.py), and
instances are protected from any other scale-in, so that no training is interrupted.

Spot instances come first. Their group waits indefinitely while none is available, so instances that are missing after
two minutes are requested on demand, in a second group. The same happens if a group's instances fail to start work.
"""

import logging
import sys
import threading
import time
from collections.abc import Collection, Sequence
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
from prefect.exceptions import ObjectNotFound
from prefect.types._datetime import now

from deployments.aws.runtime.gpu_host import end_in_group
from deployments.aws.runtime.service import exit_status_of, on_end_signal, served_account
from deployments.plan import EC2_GPU
from deployments.settings import DeploymentSettings
from tasks.core.errors import SpaceportError
from tasks.running.settings import use_settings

LOOK_SECONDS = 15.0
SPOT_PATIENCE_SECONDS = 120.0  # an available spot instance is launched within seconds
# Limit for an instance's worker to start. The instance ends by itself before that (deployments/aws/stacks/compute.py).
BOOT_SECONDS = 1200.0
PAUSE_SECONDS = 600.0  # for a group whose instance did not start work
WAITING_OR_AT_WORK = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
MOST_RUNS = MOST_WORKERS = 200  # the most that the server returns at once

log = logging.getLogger("spaceport.scaler")


def runs_due() -> int:
    """Return the pool's runs that a worker has, or should have by now."""
    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(WAITING_OR_AT_WORK))),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=now("UTC")),
    )
    with get_client(sync_client=True) as client:
        pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[EC2_GPU]))
        return len(client.read_flow_runs(flow_run_filter=wanted, work_pool_filter=pool, limit=MOST_RUNS))


def known_workers() -> set[str]:
    """Names of the pool's present and recent workers, which are ids of instances."""
    with get_client(sync_client=True) as client:
        return {worker.name for worker in client.read_workers_for_work_pool(EC2_GPU, limit=MOST_WORKERS)}


@dataclass(frozen=True)
class Group:
    """The current state of an auto scaling group."""

    name: str
    desired: int
    instances: tuple[str, ...]  # ids, working or starting
    most: int

    @property
    def launched(self) -> int:
        """Number of instances."""
        return len(self.instances)

    @classmethod
    def read(cls, autoscaling: Any, name: str) -> "Group":
        """Read the group. Raises SpaceportError if it does not exist."""
        found = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        if not found:
            raise SpaceportError(f"There is no auto scaling group {name}: deploy deployments/aws again.")
        launched = [each for each in found[0]["Instances"] if not each["LifecycleState"].startswith("Terminat")]
        ids = tuple(each["InstanceId"] for each in launched)
        return cls(name, found[0]["DesiredCapacity"], ids, found[0]["MaxSize"])


class Boots:
    """Tracks whether the instances of one group start work: each then has a worker of its name."""

    def __init__(self, group: str, boot_seconds: float, pause_seconds: float) -> None:
        self._group, self._boot_seconds, self._pause_seconds = group, boot_seconds, pause_seconds
        self._booting: dict[str, float] = {}  # since when, on the monotonic clock
        self._at_work: set[str] = set()
        self._paused_until = 0.0

    @property
    def fail(self) -> bool:
        """Whether an instance has failed recently, so that the next one would most likely fail too."""
        return time.monotonic() < self._paused_until

    def look(self, instances: Sequence[str], workers: Collection[str]) -> list[str]:
        """Note the group's instances. Returns the instances that have failed to start work and still exist."""
        now = time.monotonic()
        ended = [each for each in self._booting if each not in instances and each not in workers]
        self._at_work = {each for each in instances if each in workers or each in self._at_work}
        self._booting = {each: self._booting.get(each, now) for each in instances if each not in self._at_work}
        late = [each for each, since in self._booting.items() if now - since > self._boot_seconds]
        for each in (*ended, *late):
            log.error(
                "%s: %s %s without ever having had a worker; its console output says more. No other is asked for there "
                "for %.0f s.",
                self._group,
                each,
                "ended" if each in ended else f"is up for {self._boot_seconds:.0f} s",
                self._pause_seconds,
            )
            self._paused_until = now + self._pause_seconds
        return late


class Scaler:
    """Requests instances from the first group, and from the second those that the first cannot get for a while."""

    def __init__(
        self,
        autoscaling: Any,
        group: str,
        on_demand: str | None,
        patience_seconds: float = SPOT_PATIENCE_SECONDS,
        boot_seconds: float = BOOT_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """`on_demand` is the second group; None if the first one is on demand itself."""
        self._autoscaling, self._group, self._on_demand = autoscaling, group, on_demand
        self._patience_seconds = patience_seconds
        self._short_since: float | None = None
        names = [name for name in (group, on_demand) if name is not None]
        self._boots = {name: Boots(name, boot_seconds, pause_seconds) for name in names}

    def look(self, runs: int, workers: Collection[str]) -> dict[str, int]:
        """Request one instance per run, up to the first group's limit. Returns the requested numbers by group.

        Args:
            runs: how many are due.
            workers: names of present and recent workers.
        """
        first = self._read(self._group, workers)
        second = None if self._on_demand is None else self._read(self._on_demand, workers)
        wanted = min(runs, first.most) - (0 if second is None else second.desired)
        fails = self._boots[first.name].fail
        changes = [(first, max(first.desired, wanted))]
        if fails or (second is not None and self._is_short(first)):
            # Withdraw the rest of the request, so that it is not met later in addition, or to replace failed instances.
            changes = [(first, first.launched)]
            if second is not None:
                changes += [(second, second.desired + max(0, wanted - first.launched))]
        if second is not None and self._boots[second.name].fail:
            changes = [changes[0], (second, second.launched)]
        asked = {group.name: desired for group, desired in changes if desired != group.desired}
        for name, desired in asked.items():
            self._autoscaling.set_desired_capacity(
                AutoScalingGroupName=name, DesiredCapacity=desired, HonorCooldown=False
            )
        return asked

    def _read(self, name: str, workers: Collection[str]) -> Group:
        """Read the group, after ending its instances that failed to start work."""
        group = Group.read(self._autoscaling, name)
        late = self._boots[name].look(group.instances, workers)
        for instance in late:
            try:
                end_in_group(self._autoscaling, instance)
            except (BotoCoreError, ClientError) as error:  # instances are still requested
                log.warning("%s: %s could not be ended (%s)", name, instance, error)
        return Group.read(self._autoscaling, name) if late else group

    def _is_short(self, group: Group) -> bool:
        """Whether requested instances have been missing for longer than the patience for them."""
        if group.launched >= group.desired:
            self._short_since = None
            return False
        now = time.monotonic()
        self._short_since = now if self._short_since is None else self._short_since
        return now - self._short_since >= self._patience_seconds


def serve() -> None:
    """Scale every few seconds until SIGTERM. Raises InputError if there is no account."""
    account = served_account(use_settings(DeploymentSettings()))
    stopping = threading.Event()
    on_end_signal(stopping.set)
    scaler = Scaler(boto3.client("autoscaling"), account.ec2_group, account.ec2_group_on_demand)
    while not stopping.wait(LOOK_SECONDS):
        try:
            asked = scaler.look(runs_due(), known_workers())
        except (HTTPError, ObjectNotFound, BotoCoreError, ClientError) as error:
            log.warning("cannot look (%s)", error)  # Prefect or AWS is away; the next try is soon
            continue
        for group, desired in asked.items():
            log.info("%s: asked for %d instances", group, desired)


if __name__ == "__main__":
    sys.exit(exit_status_of(serve))
