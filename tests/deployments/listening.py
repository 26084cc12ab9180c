"""Shared by the tests of the listener: an account with queue and buckets, and uploads to it."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.listener.messages import Message, Messages
from deployments.listener.runs import Runs
from deployments.listener.service import Listener
from deployments.listener.signals import Places
from deployments.listener.uploads import Limits, Upload
from tests.conftest import REPOSITORY
from tests.deployments.accounts import account
from tests.support.aws_server import AwsServer
from tests.support.server_process import free_port, is_up, server_process, until_answers

REASON = "reason"


@dataclass
class Account:
    """Its clients, and an upload as people and S3 do it."""

    infrastructure: Infrastructure
    s3: Any
    sqs: Any

    def upload(self, key: str, content: bytes = b"{}") -> Upload:
        """Put an object; returns the version that it now has."""
        answer = self.s3.put_object(Bucket=self.infrastructure.uploads_bucket, Key=key, Body=content)
        return Upload(bucket=self.infrastructure.uploads_bucket, key=key, version=answer["VersionId"])

    def send(self, *bodies: str) -> None:
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(i), "MessageBody": body} for i, body in enumerate(bodies[start : start + 10])]
            answer = self.sqs.send_message_batch(QueueUrl=self.infrastructure.queue_url, Entries=entries)
            assert not answer.get("Failed")

    def waiting(self, queue_url: str | None = None) -> int:
        """Messages in the queue, those in flight included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=queue_url or self.infrastructure.queue_url, AttributeNames=names)
        return sum(int(value) for value in found["Attributes"].values())

    def dead(self) -> list[tuple[str, str]]:
        """Bodies and reasons of the dead letters."""
        found = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.infrastructure.dead_letters_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages", []):
            found += [(each["Body"], each["MessageAttributes"][REASON]["StringValue"]) for each in messages]
        return found

    def messages(self, visibility_seconds: int = 60) -> Messages:
        there = self.infrastructure
        return Messages(self.sqs, there.queue_url, there.dead_letters_url, visibility_seconds)

    def places(self) -> Places:
        return Places(self.s3, self.infrastructure.results, self.infrastructure.public_url)

    def listener(self, runs: Runs, messages: Messages | None = None, limits: Limits | None = None) -> Listener:
        bucket = self.infrastructure.uploads_bucket
        return Listener(messages or self.messages(), self.places(), runs, bucket, limits)

    def handle(self, runs: Runs, upload: Upload, limits: Limits | None = None) -> None:
        """What the listener does with the event of an upload."""
        message = Message(id="1", handle="no receipt", body=event(upload), deliveries=1)
        self.listener(runs, limits=limits).handle(message)

    def result(self, upload: Upload, name: str, content: bytes = b"result") -> None:
        """A file of the upload's result, as its run would publish it."""
        bucket, _, place = self.places().destination(upload).removeprefix("s3://").partition("/")
        self.s3.put_object(Bucket=bucket, Key=f"{place}/{name}", Body=content)


@contextmanager
def prefect_process(folder: Path) -> Iterator[str]:
    """A Prefect server with nothing in it; yields the address of its API."""
    port = free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": str(REPOSITORY),
    }
    log = folder / "server.log"
    with server_process([sys.executable, "-m", "deployments.local.prefect_server"], log, environment) as process:
        until_answers(process, lambda: is_up(f"http://127.0.0.1:{port}/api/health"), log)
        yield f"http://127.0.0.1:{port}/api"


def new_account(server: AwsServer, name: str) -> Account:
    """Buckets and queues of that name in the server's account."""
    s3, sqs = server.client("s3"), server.client("sqs")
    place = {"LocationConstraint": s3.meta.region_name}
    for use in ("uploads", "results"):
        s3.create_bucket(Bucket=f"{name}-{use}", CreateBucketConfiguration=place)
    s3.put_bucket_versioning(Bucket=f"{name}-uploads", VersioningConfiguration={"Status": "Enabled"})
    urls = {use: sqs.create_queue(QueueName=f"{name}-{use}")["QueueUrl"] for use in ("queue", "dead")}
    return Account(
        account(
            uploads_bucket=f"{name}-uploads",
            results_bucket=f"{name}-results",
            results=f"s3://{name}-results/results",
            queue_url=urls["queue"],
            dead_letters_url=urls["dead"],
        ),
        s3,
        sqs,
    )


def event(upload: Upload, **changed: object) -> str:
    """As EventBridge tells of an object; see the link in deployments/listener/uploads.py."""
    stored = {
        "key": upload.key,
        "size": 2,
        "etag": "0" * 32,
        "version-id": upload.version,
        "sequencer": "00617F08299329D189",
    }
    whole = {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2026-11-12T00:00:00Z",
        "region": "eu-central-1",
        "resources": [f"arn:aws:s3:::{upload.bucket}"],
        "detail": {"version": "0", "bucket": {"name": upload.bucket}, "object": stored, "reason": "PutObject"},
    }
    return json.dumps({**whole, **changed})


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    thread = threading.Thread(target=listener.listen, args=(1, 0.2))
    thread.start()
    try:
        yield
    finally:
        listener.stop()
        thread.join()


def runs_of(bucket: str) -> list[FlowRun]:
    """Every run of an upload to that bucket."""
    found: list[FlowRun] = []
    with get_client(sync_client=True) as client:
        while page := client.read_flow_runs(limit=200, offset=len(found)):
            found += page
    return [run for run in found if (run.idempotency_key or "").startswith(f"s3://{bucket}/")]
