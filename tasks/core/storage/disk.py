"""Room on disks of this machine, and one clear error when there is none."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.errors import DiskFullError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SUCH_THING = (errno.EINVAL, errno.ENOTSUP)  # from network file systems that cannot flush folders


def is_disk_full(error: OSError) -> bool:
    """Return whether the system refused to write for lack of space or quota."""
    return error.errno in _FULL


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, or of its nearest parent that exists."""
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free


def disk_full(folder: Path, needed_bytes: int | None = None) -> DiskFullError:
    """Return the error for a folder on a full disk; `needed_bytes` if that is known."""
    needed = "" if needed_bytes is None else f", {needed_bytes / 1e6:,.0f} MB are needed"
    return DiskFullError(
        f"The disk that holds {folder} is full: {free_bytes(folder) / 1e6:,.0f} MB are free{needed}. Make room there, "
        "or name a place on another disk (--workspace, --out or SPACEPORT_HOME) and run again."
    )


@contextmanager
def watching_disk(folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn "no space left" from anything that writes below `folder` into DiskFullError."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise disk_full(folder, needed_bytes) from error


def flush(path: Path) -> None:
    """Wait until the disk has a file's bytes, or a folder's names. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_THING or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
