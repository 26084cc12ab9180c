"""An AWS account for a module's tests of the listener."""

from collections.abc import Iterator

import pytest

from tests.deployments.listening import Account, new_account
from tests.support.aws_server import AwsServer, aws_server


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsServer]:
    with aws_server() as server:
        yield server


@pytest.fixture
def account(aws: AwsServer, request: pytest.FixtureRequest) -> Account:
    return new_account(aws, f"t{abs(hash(request.node.name)) % 10**9}")
