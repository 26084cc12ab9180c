"""Local copies of stored outputs, for workspaces on S3.

A copy is a folder named by the digest of its files, which appears in one rename. A process that uses a copy holds a
shared lock on it until the process ends, so that other processes do not remove it to make room. The lock is released
when the process ends, however it ends.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tasks.core.errors import DestinationError, StorageError
from tasks.core.paths import private_folder
from tasks.core.storage.disk import disk_full, free_bytes, is_disk_full, watching_disk
from tasks.core.storage.locks import lock_file, remove_unused, take_lock, working_folder
from tasks.core.storage.manifest import Manifest, verify_output, write_manifest

_ADOPT_ATTEMPTS = 5  # each lost to another process that moved at the same moment
_ABANDONED_SECONDS = 3600.0  # an unlocked scratch folder of this age was left by a killed process


class OutputCache:
    """Copies in one folder, at most `limit_bytes` besides those in use; the least recently used are removed first."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder.expanduser().resolve()
        self._limit_bytes = limit_bytes
        self._held: dict[str, int] = {}  # name of a copy: descriptor that holds its lock

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh folder to fill; it is gone when the block ends, unless `adopt` has made it a copy.

        Raises DestinationError when the cache cannot be written or its file system has no locks, DiskFullError when
        the block fills the disk.
        """
        with watching_disk(self._folder), ExitStack() as stack:
            try:
                private_folder(self._folder)
                folder = stack.enter_context(working_folder(self._folder, ".", ".partial"))
            except OSError as error:
                if is_disk_full(error):
                    raise
                raise DestinationError(
                    f"The folder for local copies {self._folder} cannot be written ({error.strerror}); name another "
                    "place with SPACEPORT_HOME."
                ) from error
            yield folder

    def adopt(self, filled: Path, manifest: Manifest) -> Path:
        """Make a filled scratch folder the copy of an output, and return the copy's folder."""
        write_manifest(filled, manifest)
        place = self._folder / manifest.full_digest
        for _ in range(_ADOPT_ATTEMPTS):
            self._hold(place)  # before there is something to remove
            with suppress(OSError):  # a copy is there
                filled.rename(place)
            found = self.get(manifest)
            if found is not None:
                return found
            remove_unused(place)  # altered
        raise StorageError(f"{place} is altered and in use by another process; end that one, or remove the folder.")

    def get(self, manifest: Manifest) -> Path | None:
        """The copy of an output, verified and kept until this process ends; None if no intact copy exists."""
        name = manifest.full_digest
        place = self._folder / name
        if not place.is_dir() or not self._hold(place):
            return None
        try:
            whole = verify_output(place).full_digest == name
        except StorageError:
            whole = False
        if not whole:
            self._let_go(place)
            return None
        os.utime(place)  # the order in which copies go
        return place

    def make_room(self, needed_bytes: int) -> None:
        """Remove unused copies until `needed_bytes` more fit within the limit. Raises DiskFullError."""
        copies = []
        for entry in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(FileNotFoundError):
                used_at = entry.stat().st_mtime
                if not entry.name.startswith("."):
                    copies.append((used_at, entry, _bytes_below(entry)))
                elif entry.is_dir() and time.time() - used_at > _ABANDONED_SECONDS:
                    remove_unused(entry)
        excess = sum(size for _, _, size in copies) + needed_bytes - self._limit_bytes
        for _, entry, size in sorted(copies):
            if excess <= 0 and free_bytes(self._folder) >= needed_bytes:
                break
            if remove_unused(entry):
                excess -= size
        if free_bytes(self._folder) < needed_bytes:
            raise disk_full(self._folder, needed_bytes)

    def _hold(self, place: Path) -> bool:
        """Keep a copy, or the place for one, until this process ends. False while another process removes it."""
        if place.name not in self._held:
            lock = take_lock(lock_file(place), fcntl.LOCK_SH)
            if lock is None:
                return False
            self._held[place.name] = lock
        return True

    def _let_go(self, place: Path) -> None:
        lock = self._held.pop(place.name, None)
        if lock is not None:
            os.close(lock)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
