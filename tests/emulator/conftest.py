"""AWS as another emulator has it: ministack deploys the events template as it is, and notifies EventBridge of uploads.

https://pypi.org/project/ministack. It pins a botocore of its own, so it lives in a virtual environment of its own,
which `make emulator-test` makes. `make test` leaves these tests to that target; CI runs both.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from deployments.aws.runtime.infrastructure import PARAMETER
from tests.conftest import REPOSITORY
from tests.emulator.account import REGION, Emulated, client
from tests.emulator.captures import Landed, land
from tests.support.local_server import Served, serving
from tests.support.patience import eventually
from tests.support.server_process import free_port, server_process, until_answers

PROGRAM = REPOSITORY / ".venv-ministack" / "bin" / "ministack"
STACK = "Spaceport-Data"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """The target sets SPACEPORT_EMULATOR, and then a missing emulator is an error."""
    if not os.environ.get("SPACEPORT_EMULATOR"):
        return True
    if not PROGRAM.exists():
        raise pytest.UsageError(f"there is no {PROGRAM}; `make emulator-test` makes it")
    return None


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which boto3 finds an empty account."""
    folder = tmp_path_factory.mktemp("ministack")
    port = str(free_port())
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    s3 = client(environment, "s3")
    own = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": port}
    with server_process([str(PROGRAM)], folder / "log", own) as process:
        until_answers(process, lambda: _answers(s3), folder / "log")
        yield environment


def _answers(s3: Any) -> bool:
    try:
        s3.list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


@pytest.fixture(scope="session")
def emulated(emulator: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    """The account with the stack Spaceport-Data, deployed as CDK wrote it."""
    folder = tmp_path_factory.mktemp("cdk")
    synthesized = subprocess.run(
        [sys.executable, "-m", "deployments.aws.stacks.app"],
        cwd=REPOSITORY,
        env={**os.environ, "CDK_OUTDIR": str(folder), "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert synthesized.returncode == 0, synthesized.stderr
    # What `cdk bootstrap` leaves behind, and every template of CDK asks for.
    ssm = client(emulator, "ssm")
    ssm.put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    formation = client(emulator, "cloudformation")
    template = (folder / f"{STACK}.template.json").read_text(encoding="utf-8")
    formation.create_stack(StackName=STACK, TemplateBody=template)

    def deployed() -> list[dict[str, str]] | None:
        stack = formation.describe_stacks(StackName=STACK)["Stacks"][0]
        assert stack["StackStatus"] in ("CREATE_COMPLETE", "CREATE_IN_PROGRESS"), stack
        return stack["Outputs"] if stack["StackStatus"] == "CREATE_COMPLETE" else None

    outputs = {each["OutputKey"]: each["OutputValue"] for each in eventually(deployed, "the stack")}
    account = Emulated(emulator, outputs)
    ssm.put_parameter(Name=PARAMETER, Value=account.infrastructure.model_dump_json(), Type="String")
    return account


@pytest.fixture(scope="session")
def server(emulated: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Prefect server with process pools, whose runs keep what they compute in the account. Training runs apart."""
    folder = tmp_path_factory.mktemp("up")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulated.environment.items():
            patch.setenv(name, value)
        with serving(folder / "home", emulated.infrastructure.workspace, dispatch="train") as served:
            yield served


@pytest.fixture(scope="session")
def landed(emulated: Emulated, server: Served, tmp_path_factory: pytest.TempPathFactory) -> Landed:
    """Uploads of every kind, and the listener until each has its end."""
    return land(emulated, server, tmp_path_factory.mktemp("captures"))
