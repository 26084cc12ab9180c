"""Where a result is published: a local folder, or `s3://bucket/prefix`."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tasks.core.errors import DestinationError, StorageError
from tasks.core.settings import Settings
from tasks.core.storage import LocalWorkspace, OutputCache, S3Folder, Workspace
from tasks.core.storage.disk import is_disk_full, watching_disk
from tasks.core.storage.folder_locks import working_folder
from tasks.workspace import open_folder

PAGE_FILE = "index.html"
REPORT_FILE = "report.html"


class Destination(ABC):
    """A place for one result; an older result there is replaced at the very end."""

    uri: str

    @abstractmethod
    def check(self) -> None:
        """Try to write there. Raises DestinationError."""

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder to put the result together in; it is gone when the block ends. Raises DiskFullError."""

    @abstractmethod
    def deliver(self, result: Path) -> None:
        """Put every entry of a scratch folder in place of the older one of its name; other entries stay."""

    @abstractmethod
    def link(self, name: str) -> str:
        """What a person opens to see a file of the result: a path or a link."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file of the result. Raises StorageError."""


def open_destination(name: str, workspace: Workspace) -> Destination:
    """The place of that name. Raises DestinationError when the name cannot be one."""
    if name.startswith("s3://"):
        return S3Destination(open_folder(name, workspace))
    if "://" in name:
        raise DestinationError(f"{name} cannot be written to: name a local folder or s3://bucket/prefix.")
    return LocalDestination(Path(name).expanduser().absolute(), workspace)


class LocalDestination(Destination):
    """A local folder, where entries are replaced by renames."""

    def __init__(self, folder: Path, workspace: Workspace) -> None:
        self._folder = folder
        self._workspace = workspace
        self.uri = str(folder)

    def check(self) -> None:
        """As in Destination; a folder that had to be made for the trial is removed: a failed run leaves nothing."""
        missing = [folder for folder in (self._folder, *self._folder.parents) if not folder.exists()]
        try:
            with self.scratch():  # with its lock, which not every file system has
                pass
        finally:
            for folder in missing:
                with suppress(OSError):  # what could not be made is not there
                    folder.rmdir()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As in Destination; inside the folder itself, so that the last step is a rename."""
        with watching_disk(self._folder):
            self._make()
            with working_folder(self._folder, ".partial-") as partial:
                yield partial

    def deliver(self, result: Path) -> None:
        """As in Destination; an older folder goes once the new one is at hand."""
        for entry in sorted(result.iterdir()):
            place = self._folder / entry.name
            if place.is_dir():
                place.rename(result / f".old-{entry.name}")
            entry.replace(place)

    def link(self, name: str) -> str:
        """A link where a web server shows the workspace's run folders and this is in one, else the path."""
        url = self._workspace.page_url(self._folder / name) if isinstance(self._workspace, LocalWorkspace) else None
        return url or str(self._folder / name)

    def read(self, name: str) -> bytes:
        """As in Destination."""
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise StorageError(f"{name} of {self.uri} cannot be read ({error.strerror}).") from error

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
    """A folder on S3.

    S3 replaces one object at a time, in one step. The page holds its splat in itself, so the two always match; it goes
    last, when all that its report and the folder show is there.
    """

    def __init__(self, folder: S3Folder) -> None:
        self._folder = folder
        self.uri = folder.uri

    def check(self) -> None:
        """As in Destination; a small object is put and removed."""
        self._folder.require_writable()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As in Destination; beside this machine's copies of stage outputs."""
        self.check()
        settings = Settings.from_environment()
        with OutputCache(settings.home / "outputs", settings.cache_bytes).scratch() as folder:
            yield folder

    def deliver(self, result: Path) -> None:
        """As in Destination."""
        names = [path.relative_to(result).as_posix() for path in sorted(result.rglob("*")) if path.is_file()]
        for together in (
            [name for name in names if "/" in name],
            [name for name in names if "/" not in name and name != PAGE_FILE],
            [name for name in names if name == PAGE_FILE],
        ):
            self._folder.upload(result, together)
        for folder in {name.partition("/")[0] for name in names if "/" in name}:
            older = [f"{folder}/{found.name}" for found in self._folder.below(folder).objects()]
            self._folder.delete(sorted(set(older) - set(names)))

    def link(self, name: str) -> str:
        """A signed link of 7 days."""
        return self._folder.link(name)

    def read(self, name: str) -> bytes:
        """As in Destination."""
        found = self._folder.read(name)
        if found is None:
            raise StorageError(f"{name} is not at {self.uri}.")
        return found[0]
