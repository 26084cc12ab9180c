"""The whole way: an upload to the bucket of the unmodified template ends as a page in the bucket of results."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments.infrastructure import PARAMETER
from deployments.listener.signals import DONE, Signal
from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tests.conftest import REPOSITORY
from tests.deployments.accounts import account
from tests.local_server import Served, serving

PATIENCE_SECONDS = 280.0
OPTIONS = {"preset": "draft", "train": {"steps": 60, "max_gaussians": 3000, "max_image_size": 160}}


@pytest.fixture(scope="module")
def stack(emulator: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the stack Spaceport-Data says of itself, deployed as CDK wrote it."""
    folder = tmp_path_factory.mktemp("cdk")
    synthesized = subprocess.run(
        [sys.executable, "-m", "deployments.aws.app"],
        cwd=REPOSITORY,
        env={**os.environ, "CDK_OUTDIR": str(folder), "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert synthesized.returncode == 0, synthesized.stderr
    aws = session(emulator)
    # What `cdk bootstrap` leaves behind, and every template of CDK asks for.
    version = "/cdk-bootstrap/hnb659fds/version"
    aws("ssm").put_parameter(Name=version, Value="30", Type="String")
    template = (folder / "Spaceport-Data.template.json").read_text(encoding="utf-8")
    formation = aws("cloudformation")
    formation.create_stack(StackName="Spaceport-Data", TemplateBody=template)

    def deployed() -> bool:
        status = formation.describe_stacks(StackName="Spaceport-Data")["Stacks"][0]["StackStatus"]
        assert status in ("CREATE_COMPLETE", "CREATE_IN_PROGRESS"), status
        return bool(status == "CREATE_COMPLETE")

    eventually(deployed, "the stack")
    outputs = formation.describe_stacks(StackName="Spaceport-Data")["Stacks"][0]["Outputs"]
    return {each["OutputKey"]: each["OutputValue"] for each in outputs}


def session(environment: dict[str, str]) -> Callable[[str], Any]:
    return lambda service: boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def eventually(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def server(emulator: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Prefect server with process pools, whose runs find the emulator."""
    folder = tmp_path_factory.mktemp("up")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.items():
            patch.setenv(name, value)
        with serving(folder / "home", folder / "workspace", dispatch="") as served:
            yield served


@contextmanager
def listening(emulator: dict[str, str], stack: dict[str, str], server: Served) -> Iterator[dict[str, str]]:
    """The listener as its service runs it; gives the environment in which commands find the account."""
    described = account(
        uploads_bucket=stack["UploadsBucket"],
        results_bucket=stack["ResultsBucket"],
        results=f"s3://{stack['ResultsBucket']}/results",
        workspace=str(server.workspace),
        queue_url=stack["QueueUrl"],
        dead_letters_url=stack["DeadLettersUrl"],
    )
    parameter = {"Name": PARAMETER, "Value": described.model_dump_json(), "Type": "String", "Overwrite": True}
    session(emulator)("ssm").put_parameter(**parameter)
    environment = {
        **os.environ,
        **emulator,
        "SPACEPORT_INFRASTRUCTURE": PARAMETER,
        "PREFECT_API_URL": server.api_url,
        "PYTHONPATH": str(REPOSITORY),
    }
    listener = subprocess.Popen([sys.executable, "-m", "deployments.listener"], env=environment, cwd=REPOSITORY)
    try:
        yield environment
    finally:
        listener.terminate()
        assert listener.wait(timeout=60) == 0


@pytest.mark.timeout(3 * PATIENCE_SECONDS)
def test_a_validation_goes_the_whole_way(
    emulator: dict[str, str], stack: dict[str, str], server: Served, tmp_path: Path
) -> None:
    with listening(emulator, stack, server) as environment:
        command = [sys.executable, "-m", "flows.cli", "validate", "--timeout", str(2 * PATIENCE_SECONDS)]
        environment |= {"SPACEPORT_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
        ended = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr + server.log("worker-cpu")[-3000:]
    for check in ("run ", "page ", "report page", "stages", "quality", "splat"):
        assert f"ok   {check}" in ended.stdout, ended.stdout
    for use in ("UploadsBucket", "ResultsBucket"):
        assert session(emulator)("s3").list_objects_v2(Bucket=stack[use])["KeyCount"] == 0
    assert not [path for path in server.workspace.rglob("*") if path.is_file()]


@pytest.mark.timeout(3 * PATIENCE_SECONDS)
def test_an_upload_becomes_a_page(
    emulator: dict[str, str], stack: dict[str, str], server: Served, tmp_path: Path
) -> None:
    s3, uploads = session(emulator)("s3"), stack["UploadsBucket"]
    with listening(emulator, stack, server):
        flight = tmp_path / "flight"
        fly(flight, DemoOptions(photos=14, width=640, height=480), ignore_progress)
        photos = sorted(path for path in flight.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        assert len(photos) == 14
        for photo in photos:
            s3.upload_file(str(photo), uploads, f"uploads/meadow/{photo.name}")
        ready = json.dumps({"options": OPTIONS}).encode()
        s3.put_object(Bucket=uploads, Key="uploads/meadow/READY.json", Body=ready)
        with zipfile.ZipFile(tmp_path / "no photos.zip", "w") as archive:
            archive.writestr("readme.txt", "nothing to see")
        s3.upload_file(str(tmp_path / "no photos.zip"), uploads, "uploads/empty.zip")

        def keys() -> set[str]:
            found = s3.list_objects_v2(Bucket=uploads, Prefix="uploads/")["Contents"]
            return {each["Key"] for each in found if each["Key"].endswith((DONE, "FAILED.json"))}

        eventually(lambda: len(keys()) == 2, "both ends")
        assert keys() == {"uploads/meadow/DONE.json", "uploads/empty.zip.FAILED.json"}, server.log("worker-cpu")[-3000:]
    done = Signal.model_validate_json(s3.get_object(Bucket=uploads, Key="uploads/meadow/DONE.json")["Body"].read())
    assert done.psnr_db is not None
    assert done.psnr_db > 10, "of a splat of sixty steps"
    page = s3.get_object(Bucket=stack["ResultsBucket"], Key="results/meadow/index.html")["Body"].read()
    assert b"<html" in page[:2000].lower()
    assert s3.head_object(Bucket=stack["ResultsBucket"], Key="results/meadow/scene.sog")["ContentLength"] > 1000
    with server.client() as client:
        names = [run.name for run in client.read_flow_runs() if not run.name.startswith("validation-")]
        assert sorted(names) == ["empty", "meadow"], "one run for each upload, none for a photo"
