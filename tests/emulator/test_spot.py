"""Spot instances are taken away in the middle of training, and others go on: real workers, real processes, S3.

Each instance has a scratch folder of its own, so all that one knows of another is in the workspace's bucket. What AWS
itself does is played: the notice by a metadata service of ours, ECS by what its agent does to a container, SIGTERM.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import FlowRun

from deployments.aws.runtime.gpu_host import WORKER, worker_environment
from deployments.local.processes import stop
from deployments.local.state import alone, folder_of
from deployments.plan import EC2_GPU, GPU, Plan
from deployments.pools import ecs_gpu_template
from tests.conftest import REPOSITORY
from tests.deployments.instances import FakeMetadata, Watched, metadata_service
from tests.emulator.account import Emulated
from tests.emulator.captures import TRAIN, Landed
from tests.support.local_server import Served
from tests.support.patience import STALL_SECONDS, ended, eventually, work_of

# A worker is ended by SIGINT, which shells let background jobs ignore, and these tests may be one.
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""

CHECKPOINT_SECONDS = 0.5


@pytest.fixture(scope="module")
def pool(server: Served, landed: Landed) -> Served:
    """The server, whose pool `spaceport-gpu` has no worker any more but the instances."""
    with alone(server.home):  # as `down`: otherwise it may be started again before its record is gone
        assert stop("worker-gpu", folder_of(server.home), STALL_SECONDS)
    return server


@pytest.fixture
def uninterrupted(emulated: Emulated, landed: Landed) -> str:
    """The sha256 of what the flight was trained to; taken out of the workspace, so that it is trained again."""
    digest = stored_splat(emulated)
    s3, bucket = emulated.client("s3"), emulated.infrastructure.results_bucket
    for key in emulated.keys(bucket, "workspace/stages/train/"):
        s3.delete_object(Bucket=bucket, Key=key)
    return digest


def stored_splat(emulated: Emulated) -> str:
    bucket = emulated.infrastructure.results_bucket
    [key] = [key for key in emulated.keys(bucket, "workspace/stages/train/") if key.endswith("/scene.ply")]
    return sha256(emulated.content(bucket, key)).hexdigest()


def saved_steps(emulated: Emulated) -> list[int]:
    """Of the checkpoints in the bucket."""
    keys = emulated.keys(emulated.infrastructure.results_bucket, "workspace/checkpoints/")
    return sorted(int(Path(key).stem) for key in keys if key.endswith(".npz"))


def training_runs(server: Served) -> list[FlowRun]:
    with server.client() as client:
        runs = client.read_flow_runs()
    return sorted((run for run in runs if "train" in run.tags), key=lambda run: str(run.created))


def own(emulated: Emulated, folder: Path) -> dict[str, str]:
    """The environment of an instance with this scratch folder."""
    variables = {"SPACEPORT_HOME": str(folder), "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **emulated.environment, **variables}


@contextmanager
def ec2_instance(emulated: Emulated, server: Served, folder: Path) -> Iterator[tuple[Watched, FakeMetadata]]:
    """What runs on an instance of pool spaceport-ec2-gpu; its pool is called spaceport-gpu here."""
    account = emulated.infrastructure.model_copy(update={"prefect_api_url": server.api_url})
    worker = [GPU if word == EC2_GPU else word for word in WORKER]
    command = [sys.executable, "-c", INTERRUPTIBLE, *worker]
    environment = {**own(emulated, folder), **worker_environment(account, server.secret), "SPACEPORT_HOME": str(folder)}
    with metadata_service() as service:
        watched = Watched(service, command, environment, idle_seconds=3600)
        try:
            yield watched, service
        finally:
            watched.host.stop()
            watched.await_end()


def test_pool_ec2_gpu(emulated: Emulated, uninterrupted: str, pool: Served, tmp_path: Path) -> None:
    bucket = emulated.infrastructure.uploads_bucket
    options = {"preset": "draft", "train": {**TRAIN, "checkpoint_seconds": CHECKPOINT_SECONDS}}
    before = len(training_runs(pool))
    run = pool.start({"photos": f"s3://{bucket}/uploads/meadow", "options": options})
    with ec2_instance(emulated, pool, tmp_path / "first") as (first, service):
        with pool.client() as client:
            eventually(lambda: saved_steps(emulated), "checkpoint", lambda: pool.moves(client))
        service.taken_away = True
        first.await_end()
        assert first.reason == "the spot instance is taken away"
        assert not first.ended_itself, "its group shall replace it"
    reached = saved_steps(emulated)[-1]
    assert 0 < reached < TRAIN["steps"]
    with ec2_instance(emulated, pool, tmp_path / "second"):
        pool.wait(run.id, "Completed")
    assert [each.state_name for each in training_runs(pool)[before:]] == ["Crashed", "Completed"]
    report = report_of(emulated, run.id)
    assert report["train"]["resumed_from_step"] == reached, "the last step that the first one did"
    assert report["cache_hits"] == ["photos", "sfm", "compress"], (
        "the splat has the same bytes as that of the undisturbed run"
    )
    assert stored_splat(emulated) == uninterrupted
    assert saved_steps(emulated) == [], "nobody needs them any more"


def report_of(emulated: Emulated, run: UUID) -> dict[str, Any]:
    bucket = emulated.infrastructure.results_bucket
    keys = emulated.keys(bucket, "workspace/runs/")
    [key] = [key for key in keys if str(run)[:8] in key and key.endswith("/report.json")]
    report: dict[str, Any] = json.loads(emulated.content(bucket, key))
    return report


def test_pool_ecs_gpu(emulated: Emulated, uninterrupted: str, pool: Served, tmp_path: Path) -> None:
    """The task's command in the environment that its pool gives it. ECS's workers start it again from the queue."""
    parameters = training_runs(pool)[0].parameters
    parameters["options"]["checkpoint_seconds"] = CHECKPOINT_SECONDS
    run = pool.start(parameters, "train/train")
    account = emulated.infrastructure.model_copy(update={"prefect_api_url": pool.api_url})
    job = ecs_gpu_template(Plan(workspace=account.workspace), account)["job_configuration"]

    def task(folder: str) -> subprocess.Popen[bytes]:
        environment = {**own(emulated, tmp_path / folder), **job["env"], "PREFECT__FLOW_RUN_ID": str(run.id)}
        environment[account.prefect_secret_name] = pool.secret
        environment |= {name: str(tmp_path / folder) for name in ("SPACEPORT_HOME", "PREFECT_HOME")}
        command = [sys.executable, *job["command"].split()[1:]]
        return subprocess.Popen(command, env=environment, cwd=tmp_path)

    first = task("first")
    eventually(lambda: saved_steps(emulated), "checkpoint", lambda: work_of(first.pid))
    first.send_signal(signal.SIGTERM)
    assert ended(first, "the task") == 0, "a task that ends otherwise is taken for a crash"
    with pool.client() as client:
        assert client.read_flow_run(run.id).state_name == "AwaitingRetry", "back in its queue"
    reached = saved_steps(emulated)[-1]
    assert 0 < reached < TRAIN["steps"]
    second = task("second")
    assert ended(second, "the second task") == 0
    completed = pool.wait(run.id, "Completed")
    assert completed.run_count == 2
    assert stored_splat(emulated) == uninterrupted
    assert saved_steps(emulated) == []
