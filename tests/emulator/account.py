"""The account that the emulator plays: clients of it, and its buckets and queues as the template made them."""

from dataclasses import dataclass
from typing import Any

import boto3

from deployments.aws.runtime.infrastructure import Infrastructure
from tests.deployments.accounts import account

REGION = "us-east-1"


@dataclass(frozen=True)
class Emulated:
    """An account in which Spaceport-Data is deployed."""

    environment: dict[str, str]  # in which boto3 finds it
    outputs: dict[str, str]  # of the stack

    def client(self, service: str) -> Any:
        return client(self.environment, service)

    @property
    def infrastructure(self) -> Infrastructure:
        """What the parameter says that the stacks of the whole account write."""
        results = self.outputs["ResultsBucket"]
        return account(
            region=REGION,
            uploads_bucket=self.outputs["UploadsBucket"],
            results_bucket=results,
            workspace=f"s3://{results}/workspace",
            results=f"s3://{results}/results",
            queue_url=self.outputs["QueueUrl"],
            dead_letters_url=self.outputs["DeadLettersUrl"],
        )

    def keys(self, bucket: str, prefix: str) -> list[str]:
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def content(self, bucket: str, key: str) -> bytes:
        content: bytes = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return content


def client(environment: dict[str, str], service: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
