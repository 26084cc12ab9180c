"""A published result as those who get it have it: files over their links."""

import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import StorageError
from tasks.places.destination import Destination

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Fetched:
    """What a link gave. `kind` is the content type; empty for a file of this machine."""

    content: bytes
    kind: str


@dataclass(frozen=True)
class Published:
    """Where a run says that its result is."""

    place: Destination
    page: str  # links, or paths on this machine
    report: str
    run: str | None = None  # its id on the Prefect server


def fetch(link: str) -> Fetched:
    """Get a link or read a path. Raises StorageError with what went wrong."""
    try:
        if not link.startswith(("http://", "https://")):
            return Fetched(Path(link).read_bytes(), "")
        with urllib.request.urlopen(link, timeout=TIMEOUT_SECONDS) as answer:
            return Fetched(answer.read(), answer.headers.get_content_type())
    except urllib.error.HTTPError as error:
        raise StorageError(f"HTTP {error.code} ({error.reason})") from error
    except OSError as error:  # urllib's own errors are among them
        raise StorageError(str(error)) from error
