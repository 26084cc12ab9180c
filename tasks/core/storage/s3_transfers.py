"""Transfer many objects in parallel with boto3, and set the headers with which a browser gets stored files.

The classic client is requested by name: on some machines boto3 would choose the CRT client, which does not work with
every S3-compatible server.
"""

import mimetypes
import time
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

from boto3.s3.transfer import TransferConfig

# A new result uses the names of the one that it replaces, so a browser asks whether its copy is still current.
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

BytesCallback = Callable[[int], None]  # gets the bytes moved so far, in the thread that waits

TRANSFER_CONFIG = TransferConfig(
    preferred_transfer_client="classic",
    max_concurrency=PARALLEL_TRANSFERS,
    multipart_threshold=32 * 2**20,
    multipart_chunksize=16 * 2**20,
)

# One request for every object that S3 can copy in one; we do not keep tags and times of parts.
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
    """Supplies a download with the size and ETag that it would ask S3 for: half of all requests for small objects."""

    def __init__(self, size: int, etag: str) -> None:
        self._size, self._etag = size, etag

    def on_queued(self, future: Any, **_: object) -> None:
        """Called by s3transfer. The ETag makes sure that all parts of a large object are of the same version."""
        future.meta.provide_transfer_size(self._size)
        future.meta.provide_object_etag(self._etag)


class Counter:
    """Collects the progress of a transfer's threads."""

    def __init__(self) -> None:
        self._moved: list[int] = []  # several threads append to it, which is safe for a list

    def on_progress(self, bytes_transferred: int, **_: object) -> None:
        """Called by s3transfer; the number is negative when a part starts over."""
        self._moved.append(bytes_transferred)

    def wait(self, transfers: Iterable[Any], on_bytes: BytesCallback | None) -> None:
        """Wait for all transfers. Raises the error of the first one that failed."""
        for transfer in transfers:
            while on_bytes is not None and not transfer.done():
                on_bytes(sum(self._moved))
                time.sleep(_REPORT_SECONDS)
            transfer.result()
        if on_bytes is not None:
            on_bytes(sum(self._moved))
