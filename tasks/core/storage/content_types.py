"""How stored files present themselves to a browser."""

import mimetypes
from pathlib import PurePosixPath

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


def content_type(name: str) -> str:
    """The media type that goes with a file's extension."""
    suffix = PurePosixPath(name).suffix.lower()
    return _OWN.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def presentation(name: str) -> dict[str, str]:
    """What S3 is told about an object of that name."""
    return {"ContentType": content_type(name), "CacheControl": CACHE_CONTROL}
