"""A result on S3 replaced in one step, as those see it who begin at its page.

S3 has no rename. A new result goes to a folder of its own first, `spaceport-<version>/`. Then the page is put, in one
step: for now it leads into that folder. While it does, the other objects are replaced, and at the end the page that
leads to them. A process that dies in between leaves a page that leads to one whole result.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tasks.core.errors import SpaceportError, StorageError
from tasks.core.storage.s3_folder import S3Folder
from tasks.core.storage.s3_lock import Confirm


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
            raise StorageError(f"{folder.uri}/{page} was changed by somebody else at the same moment; try again.")
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
