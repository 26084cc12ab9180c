"""Prefect blocks: the place of an S3 workspace, and the address for messages about runs. They never hold keys.

All users of the server can read its blocks. Access keys belong in the workers' environment. A machine with a role needs
none.
"""

import os
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import PrefectClient
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters

from deployments.plan import Plan

CREDENTIALS_BLOCK = "spaceport"
WORKSPACE_BLOCK = "spaceport-workspace"
NOTIFICATION_BLOCK = "spaceport-notify"
S3_SCHEME = "s3://"


def workspace_name(plan: Plan) -> str:
    """Return the workspace's name for runs: for a bucket, the name of its block."""
    return f"s3-bucket/{WORKSPACE_BLOCK}" if plan.workspace.startswith(S3_SCHEME) else plan.workspace


async def apply_workspace_blocks(client: PrefectClient, plan: Plan) -> list[str]:
    """Create or correct the blocks of an S3 workspace. Returns what changed."""
    if not plan.workspace.startswith(S3_SCHEME):
        return []
    bucket_name, _, folder = plan.workspace.removeprefix(S3_SCHEME).partition("/")  # keys may contain `?` and `#`
    credentials = AwsCredentials(
        region_name=_region(plan),
        aws_client_parameters=AwsClientParameters(
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        ),
    )
    changes = await _save(client, credentials, CREDENTIALS_BLOCK)
    saved = await AwsCredentials.aload(CREDENTIALS_BLOCK, client=client)
    bucket = S3Bucket(bucket_name=bucket_name, bucket_folder=folder.strip("/"), credentials=saved)
    return changes + await _save(client, bucket, WORKSPACE_BLOCK)


async def apply_notification_block(client: PrefectClient, url: str) -> tuple[UUID, list[str]]:
    """Create or correct the block that posts to `url`; returns its id and what changed.

    The body is JSON: Slack, Mattermost and similar services show its `text`.
    """
    block = CustomWebhookNotificationBlock(
        name="spaceport", url=url, json_data={"text": "{{body}}", "subject": "{{subject}}"}
    )
    changes = await _save(client, block, NOTIFICATION_BLOCK)
    slug = CustomWebhookNotificationBlock.get_block_type_slug()
    return (await client.read_block_document_by_name(NOTIFICATION_BLOCK, slug)).id, changes


def _region(plan: Plan) -> str | None:
    if plan.infrastructure is not None:
        return plan.infrastructure.region
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def _values(dumped: object) -> object:
    """Return a dump without the ids and names under which a block was saved."""
    if not isinstance(dumped, dict):
        return dumped
    return {key: _values(value) for key, value in dumped.items() if not key.startswith("_")}


async def _save(client: PrefectClient, block: Block, name: str) -> list[str]:
    try:
        present = await type(block).aload(name, client=client)
    except ValueError:  # Prefect raises it for a missing block
        present = None
    if present is not None and _values(present.model_dump()) == _values(block.model_dump()):
        return []
    await block.asave(name, overwrite=True, client=client)
    return [f"{'created' if present is None else 'updated'} block {name}"]
