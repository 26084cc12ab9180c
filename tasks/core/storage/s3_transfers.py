"""Transfers of many objects at once, as boto3 makes them, and how stored files present themselves to a browser.

The classic client is requested by name: boto3 would pick the CRT client on some machines, which does not work with
every S3-compatible server.
"""

import mimetypes
import time
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

from boto3.s3.transfer import TransferConfig

# Names are used again when a result is replaced, so a browser asks whether its copy is still the current one.
CACHE_CONTROL = "no-cache"

_OWN = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".ply": "application/octet-stream",
    ".sog": "application/octet-stream",
    ".webp": "image/webp",
}

PARALLEL_TRANSFERS = 16
_REPORT_SECONDS = 0.2

BytesCallback = Callable[[int], None]  # bytes moved so far, told to the thread that waits

TRANSFER_CONFIG = TransferConfig(
    preferred_transfer_client="classic",
    max_concurrency=PARALLEL_TRANSFERS,
    multipart_threshold=32 * 2**20,
    multipart_chunksize=16 * 2**20,
)

# One request for any object that S3 copies in one; tags and times of parts are nothing we keep.
COPY_CONFIG = TransferConfig(
    preferred_transfer_client="classic", max_concurrency=PARALLEL_TRANSFERS, multipart_threshold=5 * 2**30
)


def content_type(name: str) -> str:
    """The media type of a file's extension."""
    suffix = PurePosixPath(name).suffix.lower()
    return _OWN.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def presentation(name: str) -> dict[str, str]:
    """The headers that S3 stores with an object of that name."""
    return {"ContentType": content_type(name), "CacheControl": CACHE_CONTROL}


class Known:
    """Supplies a download with what it would ask S3 for: half of all requests for small objects."""

    def __init__(self, size: int, etag: str) -> None:
        self._size, self._etag = size, etag

    def on_queued(self, future: Any, **_: object) -> None:
        """Called by s3transfer. With the ETag, the parts of a large object are parts of the same one."""
        future.meta.provide_transfer_size(self._size)
        future.meta.provide_object_etag(self._etag)


class Counter:
    """Collects the progress of a transfer's threads."""

    def __init__(self) -> None:
        self._moved: list[int] = []  # appended to by several threads, which lists are safe for

    def on_progress(self, bytes_transferred: int, **_: object) -> None:
        """Called by s3transfer; the number is negative when a part starts over."""
        self._moved.append(bytes_transferred)

    def wait(self, transfers: Iterable[Any], on_bytes: BytesCallback | None) -> None:
        """Wait for all transfers; the first that failed raises what it failed with."""
        for transfer in transfers:
            while on_bytes is not None and not transfer.done():
                on_bytes(sum(self._moved))
                time.sleep(_REPORT_SECONDS)
            transfer.result()
        if on_bytes is not None:
            on_bytes(sum(self._moved))
