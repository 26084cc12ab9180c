"""Blocks of an S3 workspace say the whole of its name."""

import asyncio

import pytest
from prefect.client.orchestration import get_client
from prefect_aws import S3Bucket

from deployments.blocks import WORKSPACE_BLOCK, apply_workspace_blocks
from deployments.plan import Plan


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("workspace", "folder"),
    [
        ("s3://bucket", ""),
        ("s3://bucket/", ""),
        ("s3://bucket/flights/2026/", "flights/2026"),
        ("s3://bucket/a?b#c/d", "a?b#c/d"),  # all of it may be in keys
    ],
)
def test_the_prefix_is_taken_whole(workspace: str, folder: str) -> None:
    async def saved() -> S3Bucket:
        async with get_client() as client:
            await apply_workspace_blocks(client, Plan(workspace=workspace))
            return await S3Bucket.aload(WORKSPACE_BLOCK, client=client)

    block = asyncio.run(saved())
    assert (block.bucket_name, block.bucket_folder) == ("bucket", folder)
