"""Folders that a process works in, and how others know: a lock, which ends with the process however that ends."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def working_folder(parent: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """A new folder in an existing one, gone when the block ends unless the block has moved it.

    Folders of that prefix and suffix whose process has died are removed first. Raises OSError.
    """
    for abandoned in parent.glob(f"{prefix}*{suffix}"):
        remove_unused(abandoned)
    lock = None
    while lock is None:  # one that another process found before it was locked is gone again
        folder = parent / f"{prefix}{uuid.uuid4().hex[:8]}{suffix}"
        folder.mkdir()
        lock = lock_folder(folder, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def lock_folder(folder: Path, kind: int) -> int | None:
    """A descriptor that holds a lock on a folder; None when it is not there (any more) or locked by others."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        if folder.stat().st_ino == os.fstat(descriptor).st_ino:  # else it was moved away while we opened it
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def remove_unused(folder: Path) -> bool:
    """Remove a folder that nobody holds."""
    lock = lock_folder(folder, fcntl.LOCK_EX)
    if lock is None:
        return False
    aside = folder.with_name(f".{uuid.uuid4().hex}.old")  # nobody sees it half gone
    folder.rename(aside)
    os.close(lock)
    shutil.rmtree(aside, ignore_errors=True)
    return True
