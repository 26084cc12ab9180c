"""A lock on S3: one object that is put on the condition that there is none.

Its holder puts it anew again and again while it works. Another process takes over an object that does not change, or
whose process has died on this machine. No clocks are compared.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pydantic import ValidationError

from tasks.core.errors import DestinationError, SpaceportError, StorageError
from tasks.core.storage.lock_holder import LockHolder
from tasks.core.storage.s3_folder import S3Folder

LOCK_FILE = "spaceport.lock"
_BEAT_SECONDS = 15.0
_DEAD_SECONDS = 120.0  # without a beat; more than a request may take, with all its retries but the last
_POLL_SECONDS = 2.0

Confirm = Callable[[], None]  # raises StorageError when the lock is no longer ours


class _Record(LockHolder):
    """What the object says."""

    token: str  # of one `with` block
    beats: int = 0


@contextmanager
def sole_writer_on_s3(folder: S3Folder, patience_seconds: float) -> Iterator[Confirm]:
    """Hold the folder's lock while the block runs. Waits for another process that holds it.

    Yields a function that raises StorageError when another process has taken over, as it does from one that was stopped
    for minutes.

    Raises DestinationError when another process holds the lock for `patience_seconds`, and as S3Folder does.
    """
    held = _Held(folder)
    held.acquire(patience_seconds)
    ended = threading.Event()
    beating = threading.Thread(target=held.beat_until, args=(ended,), name="lock on S3", daemon=True)
    beating.start()
    try:
        yield held.confirm
    finally:
        ended.set()
        beating.join()
        held.release()


class _Held:
    """The lock as one block holds it."""

    def __init__(self, folder: S3Folder) -> None:
        self._folder = folder
        self._record = _Record(**LockHolder.here().model_dump(), token=uuid.uuid4().hex)
        self._putting = threading.Lock()

    def acquire(self, patience_seconds: float) -> None:
        begun = time.monotonic()
        seen, seen_at = "", begun  # the ETag of another's lock, and since when it has not changed
        while not self._put(None):
            found, etag = self._present()
            if etag is None:
                continue
            if found is not None and found.token == self._record.token:
                return  # our put had succeeded, only its answer was lost and boto3 tried again
            if etag != seen:
                seen, seen_at = etag, time.monotonic()
            if time.monotonic() - seen_at > _DEAD_SECONDS or (found is not None and found.has_died()):
                if self._put(etag):
                    return
                continue
            if time.monotonic() - begun > patience_seconds:
                raise DestinationError(
                    f"{found or 'Another process'} has been putting a result at {self._folder.uri} for more than "
                    f"{patience_seconds:.0f} s: run again when it has ended, or name another destination."
                )
            time.sleep(_POLL_SECONDS)

    def confirm(self) -> None:
        """Show that we are alive. Raises StorageError when the lock is another's."""
        with self._putting:
            found, etag = self._present()
            if found is None or found.token != self._record.token:
                raise StorageError(f"Another run has begun to put its result at {self._folder.uri}; try again.")
            self._record = self._record.model_copy(update={"beats": self._record.beats + 1})
            if not self._put(etag):
                raise StorageError(f"Another run has begun to put its result at {self._folder.uri}; try again.")

    def beat_until(self, ended: threading.Event) -> None:
        """Show that we are alive until `ended`; one who has to know whether the lock is still ours asks `confirm`."""
        while not ended.wait(_BEAT_SECONDS):
            with suppress(SpaceportError):
                self.confirm()

    def release(self) -> None:
        """Remove the lock if it is ours. One that stays is taken over."""
        with suppress(SpaceportError):
            found, _ = self._present()
            if found is not None and found.token == self._record.token:
                self._folder.delete([LOCK_FILE])

    def _put(self, only_over: str | None) -> bool:
        return self._folder.write(LOCK_FILE, self._record.model_dump_json().encode(), only_over=only_over)

    def _present(self) -> tuple[_Record | None, str | None]:
        """The lock that is there, None if it cannot be read; and its ETag, None if there is no lock."""
        found = self._folder.read(LOCK_FILE)
        if found is None:
            return None, None
        try:
            return _Record.model_validate_json(found[0]), found[1]
        except ValidationError:
            return None, found[1]
