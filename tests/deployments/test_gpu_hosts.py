"""Pool ec2-gpu: how many instances there are, and when one ends itself. Workers here are small processes."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from deployments.aws.runtime import gpu_host
from deployments.aws.runtime.gpu_host import end_in_group, read_account, worker_environment
from deployments.aws.runtime.scaler import Scaler
from tasks.core.errors import SpaceportError
from tests.deployments.accounts import account
from tests.deployments.instances import FakeMetadata, Watched, metadata_service
from tests.support.aws_server import AwsServer, aws_server
from tests.support.patience import eventually

IDLE = [sys.executable, "-c", "import time; time.sleep(600)"]
# A run that takes SIGTERM as training does: it keeps its state.
RUN = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1], "checkpoint").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "running").touch()
time.sleep(600)
"""
# A worker with one run, whose end it sees.
BUSY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]]).wait()
time.sleep(600)
"""
# A worker that does not end when it is told to, and begins a run instead.
STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]]))
pathlib.Path(sys.argv[1], "started").touch()
while True:
    time.sleep(0.1)
"""


def worker(script: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", script, str(folder), RUN]


@pytest.fixture
def service() -> Iterator[FakeMetadata]:
    with metadata_service() as server:
        yield server


def await_file(path: Path) -> None:
    eventually(path.exists, f"file {path.name}")


def test_an_instance_without_work_ends_itself(service: FakeMetadata) -> None:
    watched = Watched(service, IDLE, os.environ, idle_seconds=0.5)
    watched.await_end()
    assert "nothing to do" in watched.reason
    assert watched.ended_itself


def test_an_instance_whose_worker_died_ends_itself(service: FakeMetadata) -> None:
    watched = Watched(service, [sys.executable, "-c", "raise SystemExit(3)"], os.environ, idle_seconds=600)
    watched.await_end()
    assert "status 3" in watched.reason
    assert watched.ended_itself


def test_a_spot_notice_lets_the_run_save_its_state(service: FakeMetadata, tmp_path: Path) -> None:
    watched = Watched(service, worker(BUSY, tmp_path), os.environ, idle_seconds=600)
    await_file(tmp_path / "running")
    watched.host._idle_seconds = 0.5  # only now: on a busy machine the run takes longer than that to begin
    time.sleep(1.0)  # twice as long as an idle instance lives
    assert watched.reason == ""
    service.taken_away = True
    watched.await_end()
    assert "taken away" in watched.reason
    assert (tmp_path / "checkpoint").exists()
    assert not watched.ended_itself, "it goes anyway, and its group shall replace it"


def test_a_host_that_is_told_to_stop_leaves_the_instance_alone(service: FakeMetadata, tmp_path: Path) -> None:
    watched = Watched(service, worker(BUSY, tmp_path), os.environ, idle_seconds=600)
    await_file(tmp_path / "running")
    watched.host.stop()
    watched.await_end()
    assert (tmp_path / "checkpoint").exists()
    assert not watched.ended_itself


def test_a_worker_that_goes_on_takes_no_run_with_it(
    service: FakeMetadata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_runs = gpu_host._end_runs

    def end_runs_late(worker: psutil.Popen, patience_seconds: float) -> None:
        if patience_seconds == gpu_host.LATE_STOP_SECONDS:  # the worker was told to end, and begins another run
            await_file(tmp_path / "running")
        end_runs(worker, patience_seconds)

    monkeypatch.setattr(gpu_host, "WORKER_STOP_SECONDS", 0.1)
    monkeypatch.setattr(gpu_host, "_end_runs", end_runs_late)
    watched = Watched(service, worker(STUBBORN, tmp_path), os.environ, idle_seconds=600)
    await_file(tmp_path / "started")
    service.taken_away = True
    watched.await_end()
    await_file(tmp_path / "checkpoint")  # it was told to end


def test_the_workers_environment_has_the_servers_secret() -> None:
    environment = worker_environment(account(), "user:password")
    assert environment["PREFECT_API_AUTH_STRING"] == "user:password"
    assert environment["PREFECT_API_URL"] == account().prefect_api_url


class Throttled(ThreadingHTTPServer):
    """AWS while many instances start at once: each call is refused some times before it is answered."""

    REFUSALS = 6  # boto3 by itself gives up after four

    class Handler(BaseHTTPRequestHandler):
        server: "Throttled"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.server.calls += 1
            refused = self.server.calls % (Throttled.REFUSALS + 1) != 0
            answer = {"Parameter": {"Value": account().model_dump_json()}, "SecretString": "user:password"}
            body = json.dumps({"__type": "ThrottlingException"} if refused else answer).encode()
            self.send_response(400 if refused else 200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    calls = 0


def test_throttled_calls_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    with Throttled(("127.0.0.1", 0), Throttled.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            found = AwsServer(f"http://127.0.0.1:{server.server_port}")
            for name, value in found.environment.items():
                monkeypatch.setenv(name, value)
            assert read_account() == (account(), "user:password")
        finally:
            server.shutdown()
            thread.join()
    assert server.calls == 2 * (Throttled.REFUSALS + 1)


SPOT, ON_DEMAND = "gpus", "gpus-on-demand"


@pytest.fixture
def aws() -> Iterator[AwsServer]:
    with aws_server() as server:
        template = {"ImageId": "ami-12c6146b", "InstanceType": "g4dn.xlarge"}
        server.client("ec2").create_launch_template(LaunchTemplateName="gpu", LaunchTemplateData=template)
        for name in (SPOT, ON_DEMAND):
            server.client("autoscaling").create_auto_scaling_group(
                AutoScalingGroupName=name,
                LaunchTemplate={"LaunchTemplateName": "gpu"},
                MinSize=0,
                MaxSize=2,
                AvailabilityZones=["eu-central-1a"],
                NewInstancesProtectedFromScaleIn=True,
            )
        yield server


def instances(aws: AwsServer, group: str = SPOT) -> list[str]:
    found = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[group])
    return [each["InstanceId"] for each in found["AutoScalingGroups"][0]["Instances"]]


def test_a_group_grows_with_its_runs_and_shrinks_by_itself(aws: AwsServer) -> None:
    autoscaling = aws.client("autoscaling")
    scaler = Scaler(autoscaling, SPOT, ON_DEMAND)
    assert scaler.look(0, []) == {}
    assert scaler.look(1, []) == {SPOT: 1}
    assert scaler.look(1, []) == {}, "it is on its way"
    assert scaler.look(5, []) == {SPOT: 2}, "its limit"
    assert scaler.look(0, []) == {}, "what may be at work is not ended"
    first, second = instances(aws)
    end_in_group(autoscaling, first)
    assert instances(aws) == [second], "and none takes its place"
    with pytest.raises(SpaceportError, match="nobody"):
        Scaler(autoscaling, "nobody", None).look(1, [])


class WithoutSpot:
    """moto always has an instance. This is its answer as AWS gives it while there are no more spot instances."""

    def __init__(self, autoscaling: Any) -> None:
        self._autoscaling, self.instances = autoscaling, 0

    def describe_auto_scaling_groups(self, AutoScalingGroupNames: list[str]) -> Any:
        answer = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=AutoScalingGroupNames)
        if AutoScalingGroupNames == [SPOT]:
            del answer["AutoScalingGroups"][0]["Instances"][self.instances :]
        return answer

    def set_desired_capacity(self, **asked: Any) -> None:
        self._autoscaling.set_desired_capacity(**asked)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time as the scaler sees it, which only the test moves."""
    seconds = [1000.0]
    monkeypatch.setattr("deployments.aws.runtime.scaler.time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def test_what_spot_does_not_have_is_asked_for_on_demand(aws: AwsServer, now: list[float]) -> None:
    spot = WithoutSpot(aws.client("autoscaling"))
    scaler = Scaler(spot, SPOT, ON_DEMAND, patience_seconds=120)

    def look(runs: int) -> dict[str, int]:
        return scaler.look(runs, {*instances(aws), *instances(aws, ON_DEMAND)})  # all get to work

    assert look(2) == {SPOT: 2}
    spot.instances = 1
    assert look(2) == {}, "it is waited for"
    now[0] += 121
    assert look(2) == {SPOT: 1, ON_DEMAND: 1}, "two runs, two instances"
    assert len(instances(aws, ON_DEMAND)) == 1
    assert look(2) == {}
    spot.instances = 0  # taken away
    assert look(2) == {}
    now[0] += 121
    assert look(2) == {SPOT: 0, ON_DEMAND: 2}
    for instance in instances(aws, ON_DEMAND):
        end_in_group(aws.client("autoscaling"), instance)
    assert look(1) == {SPOT: 1}, "spot first, the next time too"
    now[0] += 121
    assert look(1) == {}, "it is missing since now"
    now[0] += 121
    assert look(0) == {SPOT: 0}, "it is not needed any more"
    assert instances(aws, ON_DEMAND) == []


def test_an_instance_that_ends_before_it_works_is_followed_by_one_on_demand(aws: AwsServer, now: list[float]) -> None:
    autoscaling = aws.client("autoscaling")
    scaler = Scaler(autoscaling, SPOT, ON_DEMAND, pause_seconds=600)
    assert scaler.look(1, []) == {SPOT: 1}
    assert scaler.look(1, []) == {}, "it boots"
    (broken,) = instances(aws)
    end_in_group(autoscaling, broken)  # it ends itself
    assert scaler.look(1, []) == {ON_DEMAND: 1}
    (works,) = instances(aws, ON_DEMAND)
    assert scaler.look(1, [works]) == {}
    end_in_group(autoscaling, works)  # it has done its work
    now[0] += 601
    assert scaler.look(1, [works]) == {SPOT: 1}, "spot may be well again"


def test_an_instance_that_never_works_is_ended(aws: AwsServer, now: list[float]) -> None:
    """Its start hangs. One that has or had a worker may be training while the Prefect server is away: it stays."""
    autoscaling = aws.client("autoscaling")
    scaler = Scaler(autoscaling, SPOT, ON_DEMAND, boot_seconds=1200)
    assert scaler.look(2, []) == {SPOT: 2}
    hangs, works = instances(aws)
    assert scaler.look(2, [works]) == {}
    now[0] += 1201
    assert scaler.look(2, []) == {ON_DEMAND: 1}
    assert instances(aws) == [works]
    assert hangs not in instances(aws)


def test_where_no_instance_gets_to_work_none_is_asked_for_for_a_while(aws: AwsServer) -> None:
    autoscaling = aws.client("autoscaling")
    scaler = Scaler(autoscaling, SPOT, ON_DEMAND)
    asked = [scaler.look(1, [])]
    for group in (SPOT, ON_DEMAND):
        scaler.look(1, [])
        for instance in instances(aws, group):
            end_in_group(autoscaling, instance)
        asked.append(scaler.look(1, []))
    assert asked == [{SPOT: 1}, {ON_DEMAND: 1}, {}]
    autoscaling.set_desired_capacity(AutoScalingGroupName=ON_DEMAND, DesiredCapacity=1)  # its group replaces it
    (replaced,) = instances(aws, ON_DEMAND)
    assert scaler.look(1, []) == {}
    end_in_group(autoscaling, replaced)
    assert scaler.look(1, []) == {}
    one = Scaler(autoscaling, SPOT, None)
    assert one.look(1, []) == {SPOT: 1}
    one.look(1, [])
    end_in_group(autoscaling, instances(aws)[0])
    assert one.look(1, []) == {}, "there is no other group"


def test_without_spot_there_is_one_group(aws: AwsServer) -> None:
    on_demand = WithoutSpot(aws.client("autoscaling"))
    scaler = Scaler(on_demand, SPOT, None, patience_seconds=0.0)
    assert scaler.look(1, []) == {SPOT: 1}
    assert scaler.look(1, []) == {}, "there is no other group"
