"""Folders that a process works in, marked as in use by a lock that ends with the process however that ends."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.core.errors import DestinationError

_ATTEMPTS = 20  # each lost to another process that took the new folder for an abandoned one


@contextmanager
def working_folder(parent: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """A new folder in an existing one, gone when the block ends unless the block has moved it.

    Folders of that prefix and suffix whose process has died are removed first.

    Raises:
        DestinationError: the file system has no locks.
        OSError: the folder cannot be made.
    """
    for abandoned in parent.glob(f"{prefix}*{suffix}"):
        remove_unused(abandoned)
    folder, lock = _locked_folder(parent, prefix, suffix)
    try:
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def lock_folder(folder: Path, kind: int) -> int | None:
    """A descriptor that holds a lock on a folder; None if it is gone, closed to us, or locked by others.

    Raises:
        DestinationError: the file system has no locks.
        OSError: the folder cannot be opened for another reason, such as too many open files.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        if folder.stat().st_ino == os.fstat(descriptor).st_ino:  # else it was moved away while we opened it
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:  # ENOLCK, ENOTSUP, ENOSYS: some network and user-space file systems
        os.close(descriptor)
        raise DestinationError(
            f"The file system of {folder.parent} has no file locks ({error.strerror}), by which runs know what others "
            "work on: name a place on another disk (--workspace, --out or SPACEPORT_HOME)."
        ) from error
    os.close(descriptor)
    return None


def remove_unused(folder: Path) -> bool:
    """Remove a folder that no process holds; False if one does, or if it is not ours. Raises as `lock_folder` does."""
    lock = lock_folder(folder, fcntl.LOCK_EX)
    if lock is None:
        return False
    aside = folder.with_name(f".{uuid.uuid4().hex}.old")  # removed under another name: others never see half of it
    try:
        folder.rename(aside)
    except PermissionError:  # of another user, in a folder with the sticky bit
        return False
    finally:
        os.close(lock)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _locked_folder(parent: Path, prefix: str, suffix: str) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        folder = parent / f"{prefix}{uuid.uuid4().hex[:8]}{suffix}"
        folder.mkdir()
        try:
            lock = lock_folder(folder, fcntl.LOCK_EX)
        except BaseException:
            with suppress(OSError):
                folder.rmdir()
            raise
        if lock is not None:
            return folder, lock
    raise DestinationError(f"No new folder in {parent} could be locked in {_ATTEMPTS} attempts; is it readable?")
