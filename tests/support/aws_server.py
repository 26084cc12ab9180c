"""AWS in this process for tests: moto's server. https://github.com/getmoto/moto. It runs no container."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import httpx
from moto.server import ThreadedMotoServer

from tests.support.patience import STALL_SECONDS

REGION = "eu-central-1"
ACCOUNT = "123456789012"  # moto's


class AwsServer:
    """Its address, and clients of it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def environment(self) -> dict[str, str]:
        """What boto3's default chain needs to find this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


@contextmanager
def aws_server() -> Iterator[AwsServer]:
    """An empty account, ended with the context."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        reset = f"http://{host}:{port}/moto-api/reset"  # there is one state a process
        httpx.post(reset, trust_env=False, timeout=STALL_SECONDS).raise_for_status()
        yield AwsServer(f"http://{host}:{port}")
    finally:
        server.stop()
