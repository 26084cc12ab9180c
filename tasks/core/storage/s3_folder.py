"""A folder on S3: the one place of tasks/ that calls boto3. Transfers are parallel."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import create_transfer_manager
from botocore.config import Config
from botocore.exceptions import ClientError

from tasks.core.errors import DestinationError, InputError, StorageError
from tasks.core.storage.disk import watching_disk
from tasks.core.storage.s3_errors import LOST_RACE_CODES, MISSING_CODES, code_of, is_missing, s3_errors, watch_answers
from tasks.core.storage.s3_transfers import (
    COPY_CONFIG,
    PARALLEL_TRANSFERS,
    TRANSFER_CONFIG,
    BytesCallback,
    Counter,
    Known,
    presentation,
)
from tasks.core.storage.workspace import LINK_SECONDS

_KEYS_A_DELETE = 1000  # S3's limit

CLIENT_CONFIG = Config(
    signature_version="s3v4",  # the older one, which boto3 takes for links, knows no links of seven days everywhere
    retries={"mode": "standard", "total_max_attempts": 4},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=2 * PARALLEL_TRANSFERS,
)


@dataclass(frozen=True)
class StoredObject:
    """An object below a folder. `name` is its key without the folder's."""

    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class S3Folder:
    """A bucket and a prefix. Names of objects are relative to it, posix.

    Every method raises StorageError (a retry can help), or `refused` when S3 says no.
    """

    client: Any  # botocore makes its classes at run time
    bucket: str
    prefix: str = ""  # without slashes at its ends
    refused: type[InputError] = field(default=DestinationError, compare=False)

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def below(self, name: str) -> "S3Folder":
        """A folder in this one."""
        return replace(self, prefix="/".join(part for part in (self.prefix, name.strip("/")) if part))

    @property
    def parent(self) -> "S3Folder":
        """The folder that contains this one."""
        return replace(self, prefix=self.prefix.rpartition("/")[0])

    def relative(self, uri: str) -> str | None:
        """The name of `uri` in this folder ("" for itself); None when it is elsewhere."""
        if uri.rstrip("/") == self.uri:
            return ""
        return uri.removeprefix(f"{self.uri}/").strip("/") if uri.startswith(f"{self.uri}/") else None

    def objects(self) -> Iterator[StoredObject]:
        """All objects below the folder, 1000 a call, in key order."""
        start = f"{self.prefix}/" if self.prefix else ""
        with self._errors():
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start):
                for found in page.get("Contents", []):
                    yield StoredObject(found["Key"].removeprefix(start), found["Size"], found["ETag"])

    def folders(self) -> Iterator[str]:
        """The names of the folders directly below this one, 1000 a call."""
        start = f"{self.prefix}/" if self.prefix else ""
        with self._errors():
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=start, Delimiter="/"
            )
            for page in pages:
                for found in page.get("CommonPrefixes", []):
                    yield found["Prefix"].removeprefix(start).rstrip("/")

    def head(self, name: str) -> StoredObject | None:
        """An object without its bytes, or None when it is not there."""
        # A list and not a HEAD, whose bare 404 cannot tell a missing bucket from a missing object.
        with self._errors():
            answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(name), MaxKeys=1)
        for found in answer.get("Contents", []):
            if found["Key"] == self._key(name):
                return StoredObject(name, found["Size"], found["ETag"])
        return None

    def read(self, name: str) -> tuple[bytes, str] | None:
        """An object's bytes and its ETag, or None when it is not there."""
        with self._errors():
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=self._key(name))
            except ClientError as error:
                if is_missing(error, self.client, self.bucket, self._key(name)):
                    return None
                raise
            return answer["Body"].read(), answer["ETag"]

    def read_beginning(self, name: str, count: int) -> bytes:
        """The first bytes of an object, which has to be there."""
        with self._errors():
            answer = self.client.get_object(Bucket=self.bucket, Key=self._key(name), Range=f"bytes=0-{count - 1}")
            return bytes(answer["Body"].read())

    def write(self, name: str, content: bytes, *, only_over: str | None = "") -> bool:
        """Put an object. False when it was not put, because `only_over` did not hold.

        Args:
            name: the object's name.
            content: its bytes.
            only_over: the ETag that the object must have now; None: there must be no object; empty: whatever is there.
        """
        condition = {"IfNoneMatch": "*"} if only_over is None else {"IfMatch": only_over} if only_over else {}
        with self._errors():
            try:
                self.client.put_object(
                    Bucket=self.bucket, Key=self._key(name), Body=content, **presentation(name), **condition
                )
            except ClientError as error:
                # With If-Match, "not found" means that the object was removed meanwhile.
                if condition and code_of(error) in LOST_RACE_CODES | (MISSING_CODES if only_over else set()):
                    return False
                raise
        return True

    def upload(self, folder: Path, names: Iterable[str], on_bytes: BytesCallback | None = None) -> None:
        """Put files of a local folder under their own names."""
        counter = Counter()
        with self._errors(), create_transfer_manager(self.client, TRANSFER_CONFIG) as manager:
            uploads = [
                manager.upload(str(folder / name), self.bucket, self._key(name), presentation(name), [counter])
                for name in names
            ]
            counter.wait(uploads, on_bytes)

    def download(
        self,
        files: Sequence[tuple[StoredObject, Path]],
        *,
        needed_bytes: int | None = None,
        on_bytes: BytesCallback | None = None,
    ) -> None:
        """Get objects, as a listing gave them, into local files. Raises DiskFullError too."""
        if not files:
            return
        for folder in {path.parent for _, path in files}:
            folder.mkdir(parents=True, exist_ok=True)
        counter = Counter()
        with (
            watching_disk(files[0][1].parent, needed_bytes),
            self._errors(),
            create_transfer_manager(self.client, TRANSFER_CONFIG) as manager,
        ):
            downloads = [
                manager.download(
                    self.bucket, self._key(found.name), str(path), None, [counter, Known(found.size, found.etag)]
                )
                for found, path in files
            ]
            counter.wait(downloads, on_bytes)

    def copy(self, source: "S3Folder", names: Iterable[str]) -> None:
        """Put objects of another folder here under their names; S3 copies their bytes itself."""
        wanted = set(names)
        found = [each for each in source.objects() if each.name in wanted]
        with self._errors(), create_transfer_manager(self.client, COPY_CONFIG) as manager:
            copies = [
                manager.copy(
                    {"Bucket": source.bucket, "Key": source._key(each.name)},
                    self.bucket,
                    self._key(each.name),
                    {"MetadataDirective": "REPLACE", **presentation(each.name)},
                    [Known(each.size, each.etag)],
                )
                for each in found
            ]
            Counter().wait(copies, None)
        missing = wanted - {each.name for each in found}
        if missing:
            raise StorageError(f"{min(missing)} of {source.uri} is gone.")

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; missing objects are ignored."""
        for start in range(0, len(names), _KEYS_A_DELETE):
            keys = [{"Key": self._key(name)} for name in names[start : start + _KEYS_A_DELETE]]
            with self._errors():
                answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
            for failed in answer.get("Errors", []):
                raise StorageError(f"{self.uri}: {failed.get('Key')} cannot be removed ({failed.get('Code')}).")

    def require_writable(self) -> None:
        """Write a small object and remove it."""
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        self.write(probe, b"")
        self.delete([probe])

    def link(self, name: str) -> str:
        """A link of 7 days to an object, whether or not it is there yet.

        It ends earlier with the credentials that signed it: those of a role live for some hours.
        """
        with self._errors():
            parameters = {"Bucket": self.bucket, "Key": self._key(name)}
            return str(self.client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=LINK_SECONDS))

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with s3_errors(self.uri, self.refused):
            yield


def open_s3_folder(
    uri: str,
    *,
    session: Any = None,
    client_options: dict[str, Any] | None = None,
    refused: type[InputError] = DestinationError,
) -> S3Folder:
    """The folder that `s3://bucket/prefix` names; nothing is asked of S3 yet.

    Args:
        uri: the folder.
        session: a boto3 session with credentials; the default chain where there is none.
        client_options: more arguments of the client, such as its endpoint; a `config` is laid over ours.
        refused: the error class for places that do not exist or deny access.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise refused(f"{uri} names no bucket: write s3://bucket/folder.")
    path = uri.split("://", 1)[1].partition("/")[2]  # urlsplit would cut at ? and #, which S3 allows in keys
    if ".." in PurePosixPath(path).parts:
        raise refused(f"{uri} goes up with '..', which S3 does not know: write the folder's full name.")
    options = dict(client_options or {})
    config = CLIENT_CONFIG.merge(options.pop("config")) if options.get("config") else CLIENT_CONFIG
    with s3_errors(uri, refused):
        client = (session or boto3.Session()).client("s3", config=config, **options)
    watch_answers(client)
    return S3Folder(client, parts.netloc, "/".join(part for part in path.split("/") if part), refused)
