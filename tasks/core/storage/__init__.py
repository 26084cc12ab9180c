"""Stage outputs and run folders, on a local disk or on S3. Only this package knows key names and calls S3."""

from tasks.core.storage.local import LocalWorkspace
from tasks.core.storage.manifest import (
    MANIFEST_FILE,
    MEASUREMENTS_FILE,
    Manifest,
    StoredFile,
    altered_file,
    cache_key,
    describe_files,
    describe_output,
    hash_file,
    hash_files,
    verify_output,
)
from tasks.core.storage.output_cache import OutputCache
from tasks.core.storage.s3_folder import S3Folder, StoredObject, open_s3_folder
from tasks.core.storage.s3_workspace import S3Workspace
from tasks.core.storage.workspace import CheckpointPlace, Workspace

__all__ = [
    "MANIFEST_FILE",
    "MEASUREMENTS_FILE",
    "CheckpointPlace",
    "LocalWorkspace",
    "Manifest",
    "OutputCache",
    "S3Folder",
    "S3Workspace",
    "StoredFile",
    "StoredObject",
    "Workspace",
    "altered_file",
    "cache_key",
    "describe_files",
    "describe_output",
    "hash_file",
    "hash_files",
    "open_s3_folder",
    "verify_output",
]
