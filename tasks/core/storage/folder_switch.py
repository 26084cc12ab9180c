"""Replace files of a folder in one step, although they have separate names.

    <folder>/spaceport-versions/<version>/…    all files of one version
    <folder>/spaceport-versions/current        a link to one version
    <folder>/<name>                            a link to <name> of the current version

The folder looks like this only during the change. First the existing files become links to a version with the same
bytes; then `current` is switched to the new version, in one rename; then the links become the files themselves. If a
process dies in between, either the old files or the new files are intact, and the next change can start from both.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tasks.core.storage.disk import flush

VERSIONS_FOLDER = "spaceport-versions"
_CURRENT, _NEW_LINK = "current", "link"
_VERSION = re.compile("[0-9a-f]{12}")
_READERS_SECONDS = 0.05  # to open a file whose link was just replaced; takes microseconds unless readers are halted


def takes_links(folder: Path) -> bool:
    """Return whether a folder's file system has symbolic links, which replacing in one step needs."""
    link = folder / f".link-{uuid.uuid4().hex[:8]}"
    try:
        link.symlink_to(_CURRENT)
    except OSError:
        return False
    link.unlink()
    return True


def replace_files(folder: Path, filled: Path, new: Sequence[str], old: Iterable[str], last: str) -> None:
    """Replace older files by all files of a filled folder, in one step.

    Args:
        folder: the folder of the files; only files of these names change in it.
        filled: a folder on the same disk with the new files, which is moved away.
        new: the names of its files, posix.
        old: the names of the files that are replaced; those that are not in `new` are removed.
        last: the file that people open; if it is missing, there is no version yet.

    Raises OSError; then the older files are in place, unless all the new ones are.
    """
    switch = _Switch(folder)
    gone = [name for name in set(old) - set(new) if not stands_in_way(folder, name)]
    for name in new:
        flush(filled / name)
    if not (folder / last).exists() and not takes_links(filled):
        switch.settle(filled, sorted(new, key=lambda name: name == last), gone)
        return
    there = [name for name in {*old, *new} if not stands_in_way(folder, name) and (folder / name).is_file()]
    before = switch.new_version()
    try:
        switch.keep(before, there)
        after = switch.take(filled)
        for name in new:
            switch.link(name)
        switch.turn_to(after)
    except BaseException:
        with suppress(OSError):  # report the first error; the remaining files are intact
            switch.undo(before, there, [name for name in new if name not in there])
        raise
    switch.settle(after, new, gone)


def stands_in_way(folder: Path, name: str) -> list[Path]:
    """Return files and links where a name needs folders; writing through a link would change another place."""
    folders = [folder / parent for parent in PurePosixPath(name).parents[:-1]]
    return [each for each in folders if each.is_symlink() or each.is_file()]


def foreign_versions(folder: Path) -> set[Path]:
    """Return foreign content in the folder of versions, which a change would remove."""
    versions = folder / VERSIONS_FOLDER
    if not os.path.lexists(versions):
        return set()
    ours = not versions.is_symlink() and versions.is_dir() and all(map(_is_ours, os.scandir(versions)))
    return set() if ours else {versions}


def _is_ours(entry: os.DirEntry[str]) -> bool:
    version = _VERSION.fullmatch(entry.name) is not None and entry.is_dir(follow_symlinks=False)
    return version or entry.name in (_CURRENT, _NEW_LINK)


class _Switch:
    """The versions of one folder. Only `turn_to` changes the bytes behind the names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = folder / VERSIONS_FOLDER

    def new_version(self) -> Path:
        """Return the folder for a new version, which does not exist yet."""
        return self._versions / uuid.uuid4().hex[:12]

    def keep(self, version: Path, names: list[str]) -> None:
        """Make a version of the existing files, and replace them by links to it."""
        version.mkdir(parents=True)
        for name in names:
            (version / name).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy((self._folder / name).resolve(), version / name)
        _flush_folders(version)
        self.turn_to(version)  # for names that an unfinished earlier change left as links
        for name in names:
            self.link(name)
        for other in self._versions.iterdir():
            if other.is_dir() and not other.is_symlink() and other != version:
                shutil.rmtree(other)

    def take(self, filled: Path) -> Path:
        """Turn a filled folder into a version. Returns the version's folder."""
        version = self.new_version()
        filled.rename(version)
        _flush_folders(version)
        return version

    def link(self, name: str) -> None:
        """Make a name a link to the file of that name in the current version."""
        place = self._folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * name.count("/")
        self._replace_link(f"{up}{VERSIONS_FOLDER}/{_CURRENT}/{name}", place)

    def turn_to(self, version: Path) -> None:
        """Switch all links to another version, in one step."""
        self._replace_link(version.name, self._versions / _CURRENT)
        flush(self._versions)

    def settle(self, version: Path, names: Sequence[str], gone: Iterable[str]) -> None:
        """Replace the links by the files of the current version, and remove files that it lacks."""
        for name in names:
            place = self._folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            self._put(version / name, place)
        for name in gone:
            with suppress(OSError):
                (self._folder / name).unlink()
                for above in PurePosixPath(name).parents[:-1]:
                    (self._folder / above).rmdir()  # fails for a folder that is not empty, which ends the loop
        for parent in {(self._folder / name).parent for name in names}:
            flush(parent)
        if self._versions.exists():
            time.sleep(_READERS_SECONDS)
            shutil.rmtree(self._versions, ignore_errors=True)

    def undo(self, version: Path, names: Sequence[str], added: Iterable[str]) -> None:
        """Restore the files that `keep` moved into a version, and remove broken links."""
        if (self._versions / _CURRENT).exists() and (self._versions / _CURRENT).readlink().name == version.name:
            self.settle(version, names, added)
        else:  # no links were made yet
            shutil.rmtree(version, ignore_errors=True)
            self._versions.rmdir()

    def _put(self, file: Path, place: Path) -> None:
        """Replace a link by the file. The file's own name stays, for readers that have already followed the link."""
        second_name = self._versions / _NEW_LINK
        try:
            second_name.unlink(missing_ok=True)
            second_name.hardlink_to(file)
        except OSError:  # no hard links here, or no links at all
            file.replace(place)
        else:
            second_name.replace(place)

    def _replace_link(self, target: str, place: Path) -> None:
        link = self._versions / _NEW_LINK
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.replace(place)


def _link_or_copy(file: Path, place: Path) -> None:
    """Make a hard link to a file, or a copy if the file system or its owner does not allow one."""
    try:
        place.hardlink_to(file)
    except OSError:
        shutil.copy2(file, place)
        flush(place)


def _flush_folders(folder: Path) -> None:
    """Wait until the disk has the names in a folder and in those below it."""
    for path, _, _ in os.walk(folder):
        flush(Path(path))
