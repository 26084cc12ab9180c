"""A GPU instance of pool spaceport-ec2-gpu: runs a worker that takes one run at a time, and ends when it is idle.

    python -m deployments.aws.runtime.gpu_host

runs in a container on the instance (deployments/aws/stacks/compute.py). AWS announces two minutes ahead that it
reclaims a spot instance. The run then receives SIGTERM and saves a checkpoint, from which the next attempt continues on
another machine.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import boto3
import httpx
import psutil
from botocore.config import Config

from deployments.aws.runtime.infrastructure import PARAMETER, Infrastructure, read_infrastructure
from deployments.aws.runtime.service import exit_status_of, on_end_signal
from deployments.plan import EC2_GPU
from tasks.core.errors import InputError

METADATA = "http://169.254.169.254"  # IMDSv2
IDLE_SECONDS = 600.0  # a new instance takes three to five minutes until it works
LOOK_SECONDS = 5.0  # as AWS advises for spot notices
STOP_SECONDS = 100.0  # of the two minutes
WORKER_STOP_SECONDS = 5.0  # it takes less than one, and the pool's next attempt starts after about five
LATE_STOP_SECONDS = 5.0  # for a run that has only just begun
WORKER = [sys.executable, "-m", "prefect", "worker", "start", "--pool", EC2_GPU, "--type", "process", "--limit", "1"]
# About two minutes of throttling: many instances may start at the same time.
PATIENT = Config(retries={"mode": "standard", "total_max_attempts": 10})

log = logging.getLogger("spaceport.gpu_host")


class Metadata:
    """The instance's metadata service.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    def __init__(self, url: str = METADATA) -> None:
        self._http = httpx.Client(base_url=url, timeout=5, trust_env=False)

    def instance_id(self) -> str:
        """Return the instance's id. Raises httpx.HTTPError if this machine is not an instance."""
        return self._get("/latest/meta-data/instance-id").raise_for_status().text

    def is_taken_away(self) -> bool:
        """Whether AWS has announced that it will reclaim this spot instance."""
        try:
            return self._get("/latest/meta-data/spot/instance-action").status_code == httpx.codes.OK
        except httpx.HTTPError as error:
            log.warning("the instance's metadata did not answer (%s)", error)
            return False

    def _get(self, path: str) -> httpx.Response:
        token = self._http.put("/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        return self._http.get(path, headers={"X-aws-ec2-metadata-token": token.raise_for_status().text})


class Host:
    """The worker and its supervision."""

    def __init__(
        self,
        metadata: Metadata,
        end_instance: Callable[[], None],
        command: Sequence[str],
        environment: Mapping[str, str],
        idle_seconds: float = IDLE_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._metadata, self._end_instance = metadata, end_instance
        self._command, self._environment = list(command), dict(environment)
        self._idle_seconds, self._look_seconds = idle_seconds, look_seconds
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the worker and leave the instance alone. Safe in a signal handler."""
        self._stopping.set()

    def watch(self) -> str:
        """Run until there is a reason to end, and return the reason."""
        worker = psutil.Popen(self._command, env=self._environment)
        try:
            reason = self._reason_to_end(worker)
            log.info("ends: %s", reason)
        finally:
            self._stop(worker)
        # AWS removes a reclaimed instance itself, and its group replaces it while there is work.
        if not self._stopping.is_set() and not self._metadata.is_taken_away():
            self._end_instance()
        return reason

    def _reason_to_end(self, worker: psutil.Popen) -> str:
        busy_at = time.monotonic()
        while not self._stopping.wait(self._look_seconds):
            if worker.poll() is not None:
                return f"the worker ended with status {worker.returncode}"
            if self._metadata.is_taken_away():
                return "the spot instance is taken away"
            if worker.children():  # a run is a process of the worker's
                busy_at = time.monotonic()
            elif time.monotonic() - busy_at > self._idle_seconds:
                return f"nothing to do for {self._idle_seconds:.0f} s"
        return "told to stop"

    def _stop(self, worker: psutil.Popen) -> None:
        """End the runs first, so that each saves its state and reports its end to the server. Then end the worker.

        Until it ends, the worker takes further runs, usually the next attempt of the run that has just ended. They are
        ended as well.
        """
        _end_runs(worker, STOP_SECONDS)
        if worker.poll() is None:
            worker.terminate()
            try:
                worker.wait(timeout=WORKER_STOP_SECONDS)
            except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
                log.warning("the worker did not end within %.0f s and is killed", WORKER_STOP_SECONDS)
                _end_runs(worker, LATE_STOP_SECONDS)
                worker.kill()


def _end_runs(worker: psutil.Popen, patience_seconds: float) -> None:
    """Send SIGTERM to the worker's runs and wait until they have ended, for at most `patience_seconds`."""
    runs = worker.children() if worker.poll() is None else []
    for run in runs:
        with suppress(psutil.NoSuchProcess):
            run.send_signal(signal.SIGTERM)
    psutil.wait_procs(runs, timeout=patience_seconds)


def worker_environment(account: Infrastructure, secret: str) -> dict[str, str]:
    """The environment of the worker and, through it, of its runs."""
    return {
        **os.environ,
        "PREFECT_API_URL": account.prefect_api_url,
        account.prefect_secret_name: secret,
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
    }


def end_in_group(autoscaling: Any, instance: str) -> None:
    """Terminate an instance without a replacement by its group."""
    autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)


def read_account() -> tuple[Infrastructure, str]:
    """Read the account, and the secret of its Prefect server. Raises InputError, and ClientError for the secret."""
    account = read_infrastructure(PARAMETER, PATIENT)
    secrets = boto3.client("secretsmanager", config=PATIENT)
    return account, secrets.get_secret_value(SecretId=account.prefect_secret)["SecretString"]


def serve() -> None:
    """Run the host until there is a reason to end. Raises InputError if this is not an instance of an account.

    Any other error ends this process, and with it the instance (deployments/aws/stacks/compute.py).
    """
    metadata = Metadata()
    account, secret = read_account()
    try:
        instance = metadata.instance_id()
    except httpx.HTTPError as error:
        raise InputError(f"This is no EC2 instance: its metadata does not answer ({error}).") from error
    autoscaling = boto3.client("autoscaling", config=PATIENT)
    worker = [*WORKER, "--name", instance]  # the scaler recognises a working instance by this name
    host = Host(metadata, lambda: end_in_group(autoscaling, instance), worker, worker_environment(account, secret))
    on_end_signal(host.stop)
    host.watch()


if __name__ == "__main__":
    sys.exit(exit_status_of(serve))
