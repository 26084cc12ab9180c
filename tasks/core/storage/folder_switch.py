"""Files of a folder replaced in one step, although each of them has a name of its own.

    <folder>/spaceport-versions/<version>/…    all files of one version
    <folder>/spaceport-versions/current        a link to one version
    <folder>/<name>                            a link to <name> of the current version

That is how the folder looks for the moment of the change only. First the files that are there become links to a version
with the same bytes; then `current` is turned to the new version, in one rename; then the links become the files
themselves. A process that dies in between leaves the old files whole or the new ones whole, and the next change starts
from either.
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
_READERS_SECONDS = 0.05  # to open what a link named that is a file by now; it takes microseconds unless they are halted


def takes_links(folder: Path) -> bool:
    """Return whether a folder's file system has symbolic links, without which nothing can be replaced in one step."""
    link = folder / f".link-{uuid.uuid4().hex[:8]}"
    try:
        link.symlink_to(_CURRENT)
    except OSError:
        return False
    link.unlink()
    return True


def replace_files(folder: Path, filled: Path, new: Sequence[str], old: Iterable[str], last: str) -> None:
    """Put all files of a filled folder in place of older ones, in one step.

    Args:
        folder: where the files are; nothing in it changes but files of these names.
        filled: a folder on the same disk with the new files, which is moved away.
        new: the names of its files, posix.
        old: the names of the files that are replaced; those that are not in `new` are removed.
        last: the file that people open: where it is missing no version is there yet.

    Raises OSError; the older files are in place then, unless all the new ones are.
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
        with suppress(OSError):  # the first error is the one to hear of; what stays is whole
            switch.undo(before, there, [name for name in new if name not in there])
        raise
    switch.settle(after, new, gone)


def stands_in_way(folder: Path, name: str) -> list[Path]:
    """Files and links in place of folders of a name; through a link another place would change."""
    folders = [folder / parent for parent in PurePosixPath(name).parents[:-1]]
    return [each for each in folders if each.is_symlink() or each.is_file()]


def foreign_versions(folder: Path) -> set[Path]:
    """Foreign content at the place of a folder's versions, which a change would remove."""
    versions = folder / VERSIONS_FOLDER
    if not os.path.lexists(versions):
        return set()
    ours = not versions.is_symlink() and versions.is_dir() and all(map(_is_ours, os.scandir(versions)))
    return set() if ours else {versions}


def _is_ours(entry: os.DirEntry[str]) -> bool:
    version = _VERSION.fullmatch(entry.name) is not None and entry.is_dir(follow_symlinks=False)
    return version or entry.name in (_CURRENT, _NEW_LINK)


class _Switch:
    """The versions of one folder. Every method leaves all names with the bytes that they had, but for `turn_to`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions = folder / VERSIONS_FOLDER

    def new_version(self) -> Path:
        """The folder for a version, which is not made yet."""
        return self._versions / uuid.uuid4().hex[:12]

    def keep(self, version: Path, names: list[str]) -> None:
        """Make the files that are there a version, and links to it of them."""
        version.mkdir(parents=True)
        for name in names:
            (version / name).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy((self._folder / name).resolve(), version / name)
        _flush_folders(version)
        self.turn_to(version)  # for names that an earlier change, which did not end, left as links
        for name in names:
            self.link(name)
        for other in self._versions.iterdir():
            if other.is_dir() and not other.is_symlink() and other != version:
                shutil.rmtree(other)

    def take(self, filled: Path) -> Path:
        """Make a filled folder a version. Returns the version's folder."""
        version = self.new_version()
        filled.rename(version)
        _flush_folders(version)
        return version

    def link(self, name: str) -> None:
        """Make a name a link to what the current version has of it."""
        place = self._folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * name.count("/")
        self._replace_link(f"{up}{VERSIONS_FOLDER}/{_CURRENT}/{name}", place)

    def turn_to(self, version: Path) -> None:
        """Make all links show another version: the one step."""
        self._replace_link(version.name, self._versions / _CURRENT)
        flush(self._versions)

    def settle(self, version: Path, names: Sequence[str], gone: Iterable[str]) -> None:
        """Put the files of the current version in place of the links to them, and remove what it has not."""
        for name in names:
            place = self._folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            self._put(version / name, place)
        for name in gone:
            with suppress(OSError):
                (self._folder / name).unlink()
                for above in PurePosixPath(name).parents[:-1]:
                    (self._folder / above).rmdir()  # refuses one that is not empty, which ends this
        for parent in {(self._folder / name).parent for name in names}:
            flush(parent)
        if self._versions.exists():
            time.sleep(_READERS_SECONDS)
            shutil.rmtree(self._versions, ignore_errors=True)

    def undo(self, version: Path, names: Sequence[str], added: Iterable[str]) -> None:
        """Put the files back that `keep` has made a version of, and remove links to nothing."""
        if (self._versions / _CURRENT).exists() and (self._versions / _CURRENT).readlink().name == version.name:
            self.settle(version, names, added)
        else:  # nothing was made a link yet
            shutil.rmtree(version, ignore_errors=True)
            self._versions.rmdir()

    def _put(self, file: Path, place: Path) -> None:
        """Replace a link by the file, whose own name stays for readers that have followed the link so far."""
        second_name = self._versions / _NEW_LINK
        try:
            second_name.unlink(missing_ok=True)
            second_name.hardlink_to(file)
        except OSError:  # no second names here, or no links at all
            file.replace(place)
        else:
            second_name.replace(place)

    def _replace_link(self, target: str, place: Path) -> None:
        link = self._versions / _NEW_LINK
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.replace(place)


def _link_or_copy(file: Path, place: Path) -> None:
    """A second name for a file, or a copy where the file system or its owner allows no second name."""
    try:
        place.hardlink_to(file)
    except OSError:
        shutil.copy2(file, place)
        flush(place)


def _flush_folders(folder: Path) -> None:
    """Wait until the disk has the names in a folder and in those below it."""
    for path, _, _ in os.walk(folder):
        flush(Path(path))
