"""A result on S3 replaced in one step, as seen by readers who begin at its page, by one writer at a time.

S3 has no rename. A new result is first written to a folder of its own, `spaceport-<version>/`. Then the page is
replaced, in one step, by one that links into that folder. Next the other objects are replaced, and finally the page, by
one that links to them. If a process dies in between, the page links to one complete result.

The lock is one object that is written on the condition that it does not exist. Its holder rewrites it repeatedly while
it works. Another process takes over a lock that does not change, or whose process has died on this machine. No clocks
are compared.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from tasks.core.errors import DestinationError, SpaceportError, StorageError
from tasks.core.storage.locks import LockHolder
from tasks.core.storage.s3_folder import S3Folder

LOCK_FILE = "spaceport.lock"
_BEAT_SECONDS = 15.0
_DEAD_SECONDS = 120.0  # without a beat; more than a request may take, with all its retries but the last
_POLL_SECONDS = 2.0

Confirm = Callable[[], None]  # raises StorageError when the lock is no longer ours


class _Record(LockHolder):
    """Content of the lock's object."""

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


def replace_objects(
    folder: S3Folder,
    filled: Path,
    new: Sequence[str],
    old: Iterable[str],
    page: str,
    remember: Callable[[set[str]], None],
    confirm: Confirm,
) -> None:
    """Put all files of a filled folder in place of older objects.

    Args:
        folder: where the objects are; nothing in it changes but objects of these names.
        filled: a local folder with the new files.
        new: their names, posix.
        old: names of objects that are replaced; those that are not in `new` are removed.
        page: the name of the page, which is put in one step.
        remember: called with the names of all objects that there may be, before any of them is put.
        confirm: raises StorageError when another process has begun to do the same.

    Raises as S3Folder does; the older objects are in place then, unless the page leads to all the new ones.
    """
    before = folder.head(page)
    gone = sorted(set(old) - set(new))
    others = [name for name in new if name != page]
    if before is None or page not in new:  # nothing leads to the other objects yet
        folder.upload(filled, others)
        confirm()
        folder.upload(filled, [name for name in new if name == page])
        folder.delete(gone)
        return
    version = f"spaceport-{uuid.uuid4().hex[:12]}"
    beside, staged = folder.below(version), [f"{version}/{name}" for name in new]
    remember({*old, *new, *staged})
    try:
        beside.upload(filled, new)
        confirm()
        if not folder.write(page, leading_into((filled / page).read_bytes(), version), only_over=before.etag):
            raise StorageError(f"{folder.uri}/{page} was changed by another process at the same time; try again.")
    except BaseException:
        with suppress(SpaceportError):  # the first error is the one to hear of; what stays is removed next time
            _remove_unless_shown(folder, page, version, staged)
        raise
    folder.copy(beside, others)
    folder.delete(gone)
    confirm()
    folder.copy(beside, [page])
    folder.delete(staged)


def leading_into(page: bytes, folder: str) -> bytes:
    """An HTML page with its links turned into a folder beside it."""
    head, base = b"<head>", f'<base href="{folder}/">'.encode()  # in front of the page's policy, which allows no base
    return page.replace(head, head + base, 1) if head in page else base + page


def _remove_unless_shown(folder: S3Folder, page: str, version: str, staged: list[str]) -> None:
    """Remove a version; but not where its page was put and only the answer was lost."""
    shown = folder.read(page)
    if shown is not None and version.encode() not in shown[0]:
        folder.delete(staged)
