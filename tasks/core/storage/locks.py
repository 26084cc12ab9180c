"""Locks that show processes what others are working on. A lock is released when its process ends, however it ends.

A lock is a file next to the locked folder or file, with a file system lock (`flock`) on it. Folders themselves are not
locked, because on NFS only one machine sees such a lock. The file names the process and the machine that hold it. If it
names another machine, the lock counts as held for some time even if the file system says that it is free, because some
network file systems do not share locks between machines.

The package filelock cannot replace this module: its `flock` is exclusive only, while several readers share a copy; it
leaves lock files in place; and it does not name the holder, which messages and the rule for other machines need.
"""

import errno
import fcntl
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core.errors import DestinationError
from tasks.core.storage.disk import watching_disk

_MOST_BYTES = 1000
_PID_NAMESPACE = Path("/proc/self/ns/pid")  # a link that names it; containers of one host name may have several
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine, another after a restart

_ATTEMPTS = 20  # each lost to another process that took the new folder for an abandoned one
_FORGOTTEN_SECONDS = 7 * 24 * 3600.0  # a folder of another machine that has died; no stage takes so long
_DELIVERY_SECONDS = 600.0  # the same for a result that is put into place, which takes seconds
_POLL_SECONDS = 0.1


class LockHolder(BaseModel):
    """A process and its machine."""

    model_config = ConfigDict(frozen=True)

    host: str
    boot: str  # empty where the system does not say
    pid: int
    namespace: str = ""  # in which the number means something; empty where the system does not say

    @staticmethod
    def here() -> "LockHolder":
        """This process."""
        return LockHolder(host=socket.gethostname(), boot=_boot(), pid=os.getpid(), namespace=_namespace())

    @classmethod
    def read(cls, descriptor: int) -> "LockHolder | None":
        """The process that an open lock file names; None where it names none. Raises OSError."""
        try:
            return cls.model_validate_json(os.pread(descriptor, _MOST_BYTES, 0))
        except ValidationError:
            return None

    def write(self, descriptor: int) -> None:
        """Put this process into an open lock file. Raises OSError."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self.model_dump_json().encode(), 0)

    def is_of_this_machine(self) -> bool:
        """Whether the process runs here, or did before the machine started anew."""
        here = LockHolder.here()
        return self.host == here.host or self.boot == here.boot != ""

    def has_died(self) -> bool:
        """Whether the process ran here and has ended. False if that cannot be known."""
        here = LockHolder.here()
        if self.host != here.host:
            return False  # another machine, or another container, which counts its processes by itself
        if self.boot != here.boot:
            return True
        if self.namespace != here.namespace:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        return f"Process {self.pid} on {self.host}"


def _namespace() -> str:
    with suppress(OSError):
        return str(_PID_NAMESPACE.readlink())
    return ""


@lru_cache
def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""


@contextmanager
def working_folder(parent: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """Make a new folder in an existing one; it is removed when the block ends unless the block has moved it.

    Folders of that prefix and suffix whose process has died are removed first.

    Raises:
        DestinationError: the file system has no locks.
        DiskFullError: the block fills the disk.
        OSError: the folder cannot be made.
    """
    for abandoned in _named_so(parent, prefix, suffix):
        remove_unused(abandoned)
    folder, lock = _locked_folder(parent, prefix, suffix)
    try:
        with watching_disk(parent):  # counts what is free before the folder is removed
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        release_lock(lock_file(folder), lock)


@contextmanager
def sole_writer(path: Path, what: str, patience_seconds: float) -> Iterator[None]:
    """Hold the lock file at `path` while the block runs, and remove it then. Waits for another process that holds it.

    Args:
        path: the lock file, in an existing folder.
        what: the place that the lock is for, as the message names it.
        patience_seconds: how long to wait.

    Raises:
        DestinationError: another process holds it all that time, or the file system has no locks.
        OSError: the file cannot be made.
    """
    end = time.monotonic() + patience_seconds
    while (lock := take_lock(path, fcntl.LOCK_EX, _DELIVERY_SECONDS)) is None:
        if time.monotonic() > end:
            raise DestinationError(
                f"{_holder_of(path)} has been putting a result at {what} for more than "
                f"{patience_seconds:.0f} s: run again when it has ended, or name another destination. If it has died, "
                f"remove {path}."
            )
        time.sleep(_POLL_SECONDS)
    try:
        LockHolder.here().write(lock)
        yield
    finally:
        release_lock(path, lock)


def lock_file(folder: Path) -> Path:
    """The lock file of a folder, beside it."""
    return folder.with_name(f".lock-{folder.name.strip('.')}.lock")


def take_lock(path: Path, kind: int, forgotten_seconds: float = _FORGOTTEN_SECONDS) -> int | None:
    """A descriptor that holds a lock file; None if others hold it, if it is closed to us, or if its folder is gone.

    Args:
        path: the lock file, which is made where it is missing.
        kind: LOCK_EX for one process, LOCK_SH for several.
        forgotten_seconds: after which another machine's name in the file says nothing any more.

    Raises:
        DestinationError: the file system has no locks.
        OSError: the file cannot be opened for another reason: it is a link, or there are too many open files.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)  # the holder's name goes into it
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    held = False
    try:
        held = _is_locked(descriptor, path, kind) and not (
            kind == fcntl.LOCK_EX and _is_held_elsewhere(descriptor, forgotten_seconds)
        )
    finally:
        if not held:
            os.close(descriptor)
    return descriptor if held else None


def release_lock(path: Path, lock: int) -> None:
    """Remove a lock file that is held alone, and let it go."""
    try:
        with suppress(OSError):
            path.unlink()  # first: no other process shall take a file that is about to be removed
    finally:
        os.close(lock)


def remove_unused(folder: Path) -> bool:
    """Remove a folder that no process holds; False if one does, or if it is not ours. Raises as `take_lock` does."""
    path = lock_file(folder)
    lock = take_lock(path, fcntl.LOCK_EX)
    if lock is None:
        return False
    aside = folder.with_name(f".{uuid.uuid4().hex}.old")  # removed under another name: others never see half of it
    try:
        folder.rename(aside)
    except FileNotFoundError:  # only its lock was left
        return True
    except PermissionError:  # of another user, in a folder with the sticky bit
        return False
    finally:
        release_lock(path, lock)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _is_locked(descriptor: int, path: Path, kind: int) -> bool:
    """Lock an open lock file; False if others hold it, or if it was removed or replaced while we opened it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # ENOLCK, ENOTSUP, ENOSYS: some network and user-space file systems
        if error.errno == errno.ESTALE:  # removed on the server of an NFS
            return False
        raise DestinationError(
            f"The file system of {path.parent} has no file locks ({error.strerror}), by which runs know what others "
            "work on: name a place on another disk (--workspace, --out or SPACEPORT_HOME)."
        ) from error
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        return False


def _is_held_elsewhere(descriptor: int, forgotten_seconds: float) -> bool:
    """Whether a process of another machine has put its name into a lock file not long ago."""
    holder = LockHolder.read(descriptor)
    return (
        holder is not None
        and not holder.is_of_this_machine()
        and time.time() - os.fstat(descriptor).st_mtime < forgotten_seconds
    )


def _holder_of(path: Path) -> str:
    """The process that holds a lock file, for a message."""
    holder = None
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            holder = LockHolder.read(descriptor)
        finally:
            os.close(descriptor)
    return "Another process" if holder is None else str(holder)


def _named_so(parent: Path, prefix: str, suffix: str) -> list[Path]:
    """Folders that `working_folder` may have made there, and those of which only the lock is left."""
    name = re.compile(re.escape(prefix) + "[0-9a-f]{8}" + re.escape(suffix))
    folders = {entry for entry in parent.glob(f"{prefix}*{suffix}") if name.fullmatch(entry.name)}
    for lock in parent.glob(".lock-*.lock"):
        middle = lock.name.removeprefix(".lock-").removesuffix(".lock")
        folders |= {parent / each for each in (middle, f".{middle}") if name.fullmatch(each)}
    return sorted(folders)


def _locked_folder(parent: Path, prefix: str, suffix: str) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        folder = parent / f"{prefix}{uuid.uuid4().hex[:8]}{suffix}"
        path = lock_file(folder)
        try:
            lock = take_lock(path, fcntl.LOCK_EX)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise
        if lock is None:
            with suppress(OSError):
                path.unlink()
            continue
        try:
            LockHolder.here().write(lock)
            folder.mkdir()
        except BaseException:
            release_lock(path, lock)
            raise
        return folder, lock
    raise DestinationError(f"No new folder in {parent} could be locked in {_ATTEMPTS} attempts; is it writable?")
