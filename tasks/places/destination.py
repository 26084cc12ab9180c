"""The place where a result is published: a local folder, or `s3://bucket/prefix`."""

import hashlib
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tasks.core.errors import DestinationError, StorageError
from tasks.core.paths import local_path
from tasks.core.storage import LocalWorkspace, OutputCache, S3Folder, StoredFile, StoredObject, Workspace, altered_file
from tasks.core.storage.disk import flush, is_disk_full, watching_disk
from tasks.core.storage.folder_switch import foreign_versions, replace_files, stands_in_way, takes_links
from tasks.core.storage.locks import sole_writer, working_folder
from tasks.core.storage.s3_switch import Confirm, replace_objects, sole_writer_on_s3
from tasks.places.result_files import (
    ALWAYS_WRITTEN,
    CONTENTS_FILE,
    PAGE_FILE,
    PARTS_FOLDERS,
    REPORT_DATA_FILE,
    SOMETIMES_WRITTEN,
    is_part,
    is_report_of_ours,
    read_list,
    written_list,
)
from tasks.places.workspace import open_folder
from tasks.running.settings import settings_in_use

LOCK_FILE = ".spaceport.lock"  # of a folder
LOCAL_PATIENCE_SECONDS, S3_PATIENCE_SECONDS = 60.0, 900.0  # for another writer: seconds, or an upload


class Destination(ABC):
    """A place for one result. An older result there is replaced at the very end."""

    uri: str

    @abstractmethod
    def check(self) -> None:
        """Write a probe and remove it. Raises DestinationError."""

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder in which to assemble the result; removed when the block ends. Raises DiskFullError."""

    def deliver(self, result: Path) -> None:
        """Replace the older result by the files of a scratch folder, in one step.

        Files of the earlier result that the new one lacks are removed; nothing else is touched. Only one process at a
        time delivers. If it dies, either the old or the new result is intact; on S3, for readers who start at the page.
        Raises DestinationError or StorageError.
        """
        names = sorted(path.relative_to(result).as_posix() for path in result.rglob("*") if path.is_file())
        with self._alone() as confirm:
            self.require_ours(names)
            older = self._listed()
            self._list({*older, *names})  # first, so that files of an interrupted delivery are recognised as ours
            self._replace(result, names, older, confirm)
            self._list(set(names))

    def holds(self, files: Collection[StoredFile]) -> bool:
        """Whether the result there consists of exactly these files, unaltered. Raises StorageError."""
        return self._listed() == {file.path for file in files} and self._unaltered(files)

    @abstractmethod
    def _unaltered(self, files: Collection[StoredFile]) -> bool:
        """Whether each file is there as it was delivered."""

    def require_ours(self, names: Iterable[str] | None = None) -> None:
        """Make sure that a result replaces only files of an earlier result.

        Args:
            names: the result's files; None before a run, when the names of its pictures are not known yet: then any
                file in the folders for pictures is in the way.

        Raises DestinationError.
        """
        if names is None:
            names = {
                *ALWAYS_WRITTEN,
                *SOMETIMES_WRITTEN,
                *(f"{folder}/any" for folder in PARTS_FOLDERS),
                *self._parts(),
            }
        found = self._in_the_way(set(names), set(names) - self._listed())
        if self._read(CONTENTS_FILE) is None and is_report_of_ours(self._read(REPORT_DATA_FILE) or b""):
            found -= set(names)  # files of a result that is older than the lists; links to other places never are ours
        if foreign := sorted(found):
            more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
            raise DestinationError(
                f"The result would replace {foreign[0]}{more} in {self.uri}, which no earlier result has put there: "
                "move away what is in its place, or name another destination (--out in a terminal)."
            )

    def _parts(self) -> set[str]:
        """Existing files whose names a run may choose for parts of its result."""
        found = (f"{folder}/{name}" for folder in PARTS_FOLDERS for name in self._below(folder))
        return set(filter(is_part, found))

    @abstractmethod
    def _in_the_way(self, names: set[str], unlisted: set[str]) -> set[str]:
        """Unlisted files that exist, and files or links where the result needs folders."""

    @abstractmethod
    def _below(self, folder: str) -> Iterable[str]:
        """Names of the files below a folder of the result."""

    @abstractmethod
    def _alone(self) -> AbstractContextManager[Confirm]:
        """Keep other writers out. Yields a function that raises StorageError if another one has intruded anyway."""

    @abstractmethod
    def _replace(self, result: Path, names: list[str], older: set[str], confirm: Confirm) -> None:
        """Replace older files by those of a scratch folder in one step, and remove files that it lacks."""

    @abstractmethod
    def _write(self, name: str, content: bytes) -> None:
        """Write one small file in one step."""

    @abstractmethod
    def _read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file. Raises StorageError."""

    def _list(self, names: set[str]) -> None:
        self._write(CONTENTS_FILE, written_list(names))

    def _listed(self) -> set[str]:
        """Files of earlier results; none if their list is missing or is not ours."""
        return read_list(self._read(CONTENTS_FILE) or b"")

    @abstractmethod
    def link(self, name: str) -> str:
        """Path or link that a person opens to see a file of the result."""

    def read(self, name: str) -> bytes:
        """Return the content of a file of the result. Raises StorageError."""
        content = self._read(name)
        if content is None:
            raise StorageError(f"{name} is not at {self.uri}.")
        return content


def open_destination(name: str, workspace: Workspace) -> Destination:
    """Return the place of that name. Raises DestinationError if it is not a valid name."""
    if name.startswith("s3://"):
        return S3Destination(open_folder(name, workspace))
    if "://" in name:
        raise DestinationError(f"{name} cannot be written to: name a local folder or s3://bucket/prefix.")
    return LocalDestination(local_path(name).absolute(), workspace)


class LocalDestination(Destination):
    """A local folder."""

    def __init__(self, folder: Path, workspace: Workspace) -> None:
        self._folder = folder
        self._workspace = workspace
        self.uri = str(folder)

    def check(self) -> None:
        """As in Destination. A folder that was created for the probe is removed: a failed run leaves nothing."""
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        try:
            with self.scratch() as partial:  # this takes its lock, which not every file system supports
                if (self._folder / PAGE_FILE).exists() and not takes_links(partial):
                    raise DestinationError(
                        f"The file system of {self._folder} has no symbolic links, without which the result that is "
                        "there cannot be replaced in one step: remove it, or name another destination (--out)."
                    )
        finally:
            for folder in missing:
                with suppress(OSError):  # a folder that could not be created does not exist
                    folder.rmdir()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As in Destination; inside the folder itself, so that the last step is a rename."""
        with watching_disk(self._folder):
            self._make()
            with working_folder(self._folder, ".partial-") as partial:
                yield partial

    def link(self, name: str) -> str:
        """A link if this folder is in a run's folder that a web server shows, else the path."""
        url = self._workspace.page_url(self._folder / name) if isinstance(self._workspace, LocalWorkspace) else None
        return url or str(self._folder / name)

    def _read(self, name: str) -> bytes | None:
        """As in Destination."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{name} of {self.uri} cannot be read ({error.strerror}).") from error

    def _unaltered(self, files: Collection[StoredFile]) -> bool:
        """As in Destination; every file is read and hashed."""
        try:
            return altered_file(self._folder, files) is None
        except OSError as error:
            raise StorageError(f"{self.uri} cannot be read ({error.strerror}).") from error

    def _in_the_way(self, names: set[str], unlisted: set[str]) -> set[str]:
        """As in Destination. Our links never point to folders, so a link to a folder is not ours."""
        others = {other for name in names for other in stands_in_way(self._folder, name)}
        there = {name for name in unlisted if os.path.lexists(self._folder / name)}
        folders = {name for name in names if (self._folder / name).is_dir()}
        others |= foreign_versions(self._folder)
        return {other.relative_to(self._folder).as_posix() for other in others} | there | folders

    def _below(self, folder: str) -> Iterator[str]:
        """As in Destination. Links are not followed."""
        for path, _, names in os.walk(self._folder / folder):
            yield from ((Path(path) / name).relative_to(self._folder / folder).as_posix() for name in names)

    @contextmanager
    def _alone(self) -> Iterator[Confirm]:
        """As in Destination."""
        with self._refusals(), sole_writer(self._folder / LOCK_FILE, self.uri, LOCAL_PATIENCE_SECONDS):
            yield lambda: None  # the file system keeps others out

    def _replace(self, result: Path, names: list[str], older: set[str], confirm: Confirm) -> None:
        """As in Destination, by switching a link to the new files."""
        with self._refusals():
            replace_files(self._folder, result, names, older, PAGE_FILE)

    def _write(self, name: str, content: bytes) -> None:
        """As in Destination."""
        partial = self._folder / f".{name}.partial"
        with self._refusals():
            partial.unlink(missing_ok=True)  # left by a process that died, or a link to another place
            partial.write_bytes(content)
            flush(partial)
            partial.replace(self._folder / name)
            flush(self._folder)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn an OSError into a DestinationError that names the file; a full disk is reported elsewhere."""
        try:
            yield
        except OSError as error:
            if is_disk_full(error):
                raise
            raise DestinationError(
                f"{error.filename or self.uri} cannot be written ({error.strerror}): name another destination."
            ) from error

    def _make(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe = self._folder / f".probe-{uuid.uuid4().hex[:8]}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            if is_disk_full(error):
                raise
            raise DestinationError(
                f"The output folder {self._folder} cannot be written ({error.strerror}); name another one with --out."
            ) from error


class S3Destination(Destination):
    """A folder on S3, which replaces one object at a time."""

    def __init__(self, folder: S3Folder) -> None:
        self._folder = folder
        self.uri = folder.uri

    def check(self) -> None:
        """As in Destination; a small object is written and removed."""
        self._folder.require_writable()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As in Destination; next to this machine's copies of stage outputs."""
        self.check()
        settings = settings_in_use()
        with OutputCache(settings.home / "outputs", settings.cache_bytes).scratch() as folder:
            yield folder

    def _unaltered(self, files: Collection[StoredFile]) -> bool:
        """As in Destination. Compares sizes, and the bytes of the page, which names the other files."""
        folders = {file.path.partition("/")[0] for file in files if "/" in file.path}
        there = {f"{folder}/{found.name}": found.size for folder in folders for found in self._below_objects(folder)}
        for file in files:
            if "/" not in file.path and (found := self._folder.head(file.path)) is not None:
                there[file.path] = found.size
        [page] = [file for file in files if file.path == PAGE_FILE]
        return (
            all(there.get(file.path) == file.size for file in files)
            and hashlib.sha256(self.read(PAGE_FILE)).hexdigest() == page.sha256
        )

    def _below_objects(self, folder: str) -> Iterator[StoredObject]:
        """The objects below a folder of the result. The whole place is never listed: it may be a large bucket."""
        return self._folder.below(folder).objects()

    def _in_the_way(self, names: set[str], unlisted: set[str]) -> set[str]:
        """As in Destination."""
        folders = {name.partition("/")[0] for name in unlisted if "/" in name}
        below = {f"{folder}/{found.name}" for folder in folders for found in self._below_objects(folder)}
        return unlisted & (below | {name for name in unlisted if "/" not in name and self._folder.head(name)})

    def _below(self, folder: str) -> Iterator[str]:
        """As in Destination."""
        return (found.name for found in self._below_objects(folder))

    def _alone(self) -> AbstractContextManager[Confirm]:
        """As in Destination."""
        return sole_writer_on_s3(self._folder, S3_PATIENCE_SECONDS)

    def _replace(self, result: Path, names: list[str], older: set[str], confirm: Confirm) -> None:
        """As in Destination, by switching the page."""
        replace_objects(self._folder, result, names, older, PAGE_FILE, self._list, confirm)

    def _write(self, name: str, content: bytes) -> None:
        """As in Destination."""
        self._folder.write(name, content)

    def link(self, name: str) -> str:
        """A signed link of 7 days."""
        return self._folder.link(name)

    def _read(self, name: str) -> bytes | None:
        """As in Destination."""
        found = self._folder.read(name)
        return None if found is None else found[0]
