"""Open a place by its name: a local folder, `s3://bucket/prefix`, or `s3-bucket/<block>`."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

from tasks.core.errors import DestinationError, InputError
from tasks.core.storage import LocalWorkspace, OutputCache, S3Folder, S3Workspace, Workspace, open_s3_folder
from tasks.running.settings import settings_in_use

BLOCK_PREFIX = "s3-bucket/"  # as Prefect names blocks of the type S3Bucket
_OPENING = Lock()


def is_remote(name: str) -> bool:
    """Whether the name is not that of a local folder."""
    return "://" in name or name.startswith(BLOCK_PREFIX)


def open_workspace(name: str) -> Workspace:
    """Open the workspace of that name; a process always gets the same object for the same name and settings.

    Raises DestinationError if the name is not valid, or there is no such block.
    """
    settings = settings_in_use()
    with _OPENING:  # boto3 can create clients in only one thread at a time
        return _opened(name, settings.pages_url, settings.home / "outputs", settings.cache_bytes)


@lru_cache
def _opened(name: str, pages_url: str | None, copies: Path, cache_bytes: int) -> Workspace:
    if not is_remote(name):
        return LocalWorkspace(name, pages_url)
    root = _load_block(name.removeprefix(BLOCK_PREFIX)) if name.startswith(BLOCK_PREFIX) else open_s3_folder(name)
    return S3Workspace(root, OutputCache(copies, cache_bytes))


def open_folder(uri: str, workspace: Workspace, refused: type[InputError] = DestinationError) -> S3Folder:
    """Open the folder `s3://bucket/prefix`, with the workspace's credentials if it is in the workspace's bucket.

    Raises `refused` if the name is not valid.
    """
    folder = open_s3_folder(uri, refused=refused)
    if isinstance(workspace, S3Workspace) and workspace.root.bucket == folder.bucket:
        return replace(folder, client=workspace.root.client)
    return folder


def _load_block(block: str) -> S3Folder:
    """Open the folder of an `S3Bucket` block, with the credentials of its `AwsCredentials` block.

    If the keys there are empty, boto3's default chain chooses the credentials; it knows a machine's role.
    """
    from prefect_aws import S3Bucket  # takes a second to import, and most workspaces need no block

    try:
        bucket = S3Bucket.load(block)
    except ValueError as error:
        raise DestinationError(
            f"There is no block {BLOCK_PREFIX}{block} on this Prefect server: create one of the type S3 Bucket (under "
            "Blocks in its UI), or name a folder or s3://bucket/prefix."
        ) from error
    assert isinstance(bucket, S3Bucket)
    return open_s3_folder(
        f"s3://{bucket.bucket_name}/{bucket.bucket_folder}",
        session=bucket.credentials.get_boto3_session(),
        client_options=bucket.credentials.aws_client_parameters.get_params_override(),
    )
