"""Stage outputs and run folders, on a local disk or on S3. The one room that knows key names and speaks to S3."""

from tasks.core.storage.local import LocalWorkspace
from tasks.core.storage.manifest import (
    MANIFEST_FILE,
    Manifest,
    StoredFile,
    cache_key,
    describe_output,
    hash_file,
    hash_tree,
    verify_output,
)
from tasks.core.storage.workspace import Workspace

__all__ = [
    "MANIFEST_FILE",
    "LocalWorkspace",
    "Manifest",
    "StoredFile",
    "Workspace",
    "cache_key",
    "describe_output",
    "hash_file",
    "hash_tree",
    "verify_output",
]
