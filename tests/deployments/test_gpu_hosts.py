"""Pool ec2-gpu: how many instances there are, and when one ends itself. Workers here are small processes."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployments.gpu_host import Host, Metadata, end_in_group, worker_environment
from deployments.scaler import scale_out
from tasks.core.errors import SpaceportError
from tests.aws_server import AwsServer, aws_server
from tests.deployments.accounts import account

PATIENCE_SECONDS = 120.0
IDLE = [sys.executable, "-c", "import time; time.sleep(600)"]
# A worker with one run, which takes SIGTERM as training does: it keeps its state, and the worker sees it end.
BUSY = """
import subprocess, sys, time
run = '''
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path(sys.argv[1], "checkpoint").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1], "running").touch()
time.sleep(600)
'''
child = subprocess.Popen([sys.executable, "-c", run, sys.argv[1]])
child.wait()
time.sleep(600)
"""


class FakeMetadata(ThreadingHTTPServer):
    """The instance's metadata service, version 2: it answers nobody without a token."""

    taken_away = False

    class Handler(BaseHTTPRequestHandler):
        server: "FakeMetadata"

        def do_PUT(self) -> None:
            self.answer(200, "token" if self.path == "/latest/api/token" else "")

        def do_GET(self) -> None:
            if self.headers["X-aws-ec2-metadata-token"] != "token":
                self.answer(401, "")
            elif self.path == "/latest/meta-data/instance-id":
                self.answer(200, "i-0123")
            elif self.path == "/latest/meta-data/spot/instance-action" and self.server.taken_away:
                self.answer(200, '{"action": "terminate"}')
            else:
                self.answer(404, "")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass


@pytest.fixture
def service() -> Iterator[FakeMetadata]:
    with FakeMetadata(("127.0.0.1", 0), FakeMetadata.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Watched:
    """A host that works in a thread."""

    def __init__(self, service: FakeMetadata, command: list[str], idle_seconds: float) -> None:
        self.ended_itself = False
        metadata = Metadata(f"http://127.0.0.1:{service.server_port}")
        assert metadata.instance_id() == "i-0123"
        self.host = Host(metadata, self._end, command, os.environ, idle_seconds, look_seconds=0.1)
        self.reason = ""
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _end(self) -> None:
        self.ended_itself = True

    def _watch(self) -> None:
        self.reason = self.host.watch()

    def await_end(self) -> None:
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()


def await_file(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


def test_an_instance_without_work_ends_itself(service: FakeMetadata) -> None:
    watched = Watched(service, IDLE, idle_seconds=0.5)
    watched.await_end()
    assert "nothing to do" in watched.reason
    assert watched.ended_itself


def test_an_instance_whose_worker_died_ends_itself(service: FakeMetadata) -> None:
    watched = Watched(service, [sys.executable, "-c", "raise SystemExit(3)"], idle_seconds=600)
    watched.await_end()
    assert "status 3" in watched.reason
    assert watched.ended_itself


def test_a_spot_notice_lets_the_run_save_its_state(service: FakeMetadata, tmp_path: Path) -> None:
    watched = Watched(service, [sys.executable, "-c", BUSY, str(tmp_path)], idle_seconds=0.5)
    await_file(tmp_path / "running")
    time.sleep(1.0)  # twice as long as an idle instance lives
    assert watched.reason == ""
    service.taken_away = True
    watched.await_end()
    assert "taken away" in watched.reason
    assert (tmp_path / "checkpoint").exists()
    assert not watched.ended_itself, "it goes anyway, and its group shall replace it"


def test_a_host_that_is_told_to_stop_leaves_the_instance_alone(service: FakeMetadata, tmp_path: Path) -> None:
    watched = Watched(service, [sys.executable, "-c", BUSY, str(tmp_path)], idle_seconds=600)
    await_file(tmp_path / "running")
    watched.host.stop()
    watched.await_end()
    assert (tmp_path / "checkpoint").exists()
    assert not watched.ended_itself


def test_the_workers_environment_has_the_servers_secret() -> None:
    environment = worker_environment(account(), "user:password")
    assert environment["PREFECT_API_AUTH_STRING"] == "user:password"
    assert environment["PREFECT_API_URL"] == account().prefect_api_url


@pytest.fixture
def aws() -> Iterator[AwsServer]:
    with aws_server() as server:
        template = {"ImageId": "ami-12c6146b", "InstanceType": "g4dn.xlarge"}
        server.client("ec2").create_launch_template(LaunchTemplateName="gpu", LaunchTemplateData=template)
        server.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName="gpus",
            LaunchTemplate={"LaunchTemplateName": "gpu"},
            MinSize=0,
            MaxSize=2,
            AvailabilityZones=["eu-central-1a"],
        )
        yield server


def instances(aws: AwsServer) -> list[str]:
    found = aws.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["gpus"])
    return [each["InstanceId"] for each in found["AutoScalingGroups"][0]["Instances"]]


def test_a_group_grows_with_its_runs_and_shrinks_by_itself(aws: AwsServer) -> None:
    autoscaling = aws.client("autoscaling")
    assert scale_out(autoscaling, "gpus", runs=0) is None
    assert scale_out(autoscaling, "gpus", runs=1) == 1
    assert scale_out(autoscaling, "gpus", runs=1) is None, "it is on its way"
    assert scale_out(autoscaling, "gpus", runs=5) == 2, "its limit"
    assert scale_out(autoscaling, "gpus", runs=0) is None, "nobody ends what may be at work"
    first, second = instances(aws)
    end_in_group(autoscaling, first)
    assert instances(aws) == [second], "and none takes its place"
    with pytest.raises(SpaceportError, match="nobody"):
        scale_out(autoscaling, "nobody", runs=1)
