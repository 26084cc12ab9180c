"""AWS as another emulator has it: ministack deploys the events template as it is, and tells EventBridge of uploads.

https://pypi.org/project/ministack. It pins a botocore of its own, so it lives in a virtual environment of its own,
which `make emulator-test` makes; `make test` leaves these tests out where that is not there.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.conftest import REPOSITORY
from tests.server_process import free_port, server_process, until_answers

PROGRAM = REPOSITORY / ".venv-ministack" / "bin" / "ministack"
REGION = "us-east-1"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """CI sets SPACEPORT_REQUIRE_EMULATOR, and then a missing emulator is an error."""
    if PROGRAM.exists():
        return None
    if os.environ.get("SPACEPORT_REQUIRE_EMULATOR"):
        raise pytest.UsageError(f"there is no {PROGRAM}; `make emulator-test` makes it")
    return True


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
    s3 = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=REGION,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
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
