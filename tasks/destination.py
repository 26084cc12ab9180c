"""Where a result is published: a local folder, or `s3://bucket/prefix`."""

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, TypeAdapter, ValidationError

from tasks.core.errors import DestinationError, StorageError, UnsafeNameError
from tasks.core.georeference import GEOREFERENCE_FILE
from tasks.core.local_path import local_path
from tasks.core.safe_names import MAX_KEY_BYTES, safe_name
from tasks.core.scene import MODEL_FOLDER
from tasks.core.settings import Settings
from tasks.core.sog.layout import LOD_FOLDER
from tasks.core.storage import LocalWorkspace, OutputCache, S3Folder, Workspace
from tasks.core.storage.disk import is_disk_full, watching_disk
from tasks.core.storage.folder_locks import working_folder
from tasks.workspace import open_folder

PAGE_FILE = "index.html"
REPORT_FILE = "report.html"
REPORT_DATA_FILE = "report.json"
SPLAT_FILE, PLY_FILE = "scene.sog", "scene.ply"
PREVIEW_FILE, FLY_AROUND_FILE = "preview.jpg", "fly-around.webp"
COLMAP_FOLDER = "colmap"
RESULT_FOLDERS = (COLMAP_FOLDER, LOD_FOLDER)
ALWAYS_WRITTEN = (
    *(PAGE_FILE, REPORT_FILE, REPORT_DATA_FILE, SPLAT_FILE, PLY_FILE, PREVIEW_FILE, FLY_AROUND_FILE, GEOREFERENCE_FILE),
    *(f"{COLMAP_FOLDER}/{MODEL_FOLDER}/{part}.bin" for part in ("cameras", "images", "points3D")),
)
CONTENTS = TypeAdapter(list[str])  # paths below the destination, posix
CONTENTS_FILE = "spaceport-files.json"  # lists the files that we have put there; the next result removes those it lacks


class _ReportVersions(BaseModel):
    """What every report of ours says: it tells a result from before there were lists of files."""

    versions: dict[str, str]


class Destination(ABC):
    """A place for one result; an older result there is replaced at the very end."""

    uri: str

    @abstractmethod
    def check(self) -> None:
        """Try to write there. Raises DestinationError."""

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder to put the result together in; it is gone when the block ends. Raises DiskFullError."""

    def deliver(self, result: Path) -> None:
        """Put every file of a scratch folder in place of the older one of its name.

        Files that an earlier result has put there and this one has not are removed; nothing else is touched. The page
        goes last: it holds its splat in itself, so the two always match. Raises DestinationError or StorageError.
        """
        names = sorted(path.relative_to(result).as_posix() for path in result.rglob("*") if path.is_file())
        self.require_ours(names)
        older = self._listed()
        self._list({*older, *names})  # first, so that files of an interrupted delivery are known as ours
        for together in (
            [name for name in names if "/" in name],
            [name for name in names if "/" not in name and name != PAGE_FILE],
            [name for name in names if name == PAGE_FILE],
        ):
            self._put(result, together)
        self._remove(sorted(older - set(names)))
        self._list(set(names))

    def require_ours(self, names: Iterable[str] = ALWAYS_WRITTEN) -> None:
        """Raises DestinationError where one of these files would replace what no earlier result has put there."""
        foreign = sorted(self._in_the_way(set(names), set(names) - self._listed()))
        if foreign and not self._is_result_without_list():
            more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
            raise DestinationError(
                f"The result would replace {foreign[0]}{more} in {self.uri}, which no earlier result has put there: "
                "move away what is in its place, or name another destination (--out in a terminal)."
            )

    def _is_result_without_list(self) -> bool:
        """Whether a result lies there that is older than our lists of files."""
        if self._read(CONTENTS_FILE) is not None:
            return False
        try:
            return "spaceport" in _ReportVersions.model_validate_json(self._read(REPORT_DATA_FILE) or b"").versions
        except ValidationError:
            return False

    @abstractmethod
    def _in_the_way(self, names: set[str], unlisted: set[str]) -> set[str]:
        """Which of the unlisted files are there; and what is in place of folders of any of the names."""

    @abstractmethod
    def _put(self, result: Path, names: list[str]) -> None:
        """Put these files of a scratch folder, each in one step."""

    @abstractmethod
    def _remove(self, names: list[str]) -> None:
        """Remove files; those that are not there are no trouble."""

    @abstractmethod
    def _write(self, name: str, content: bytes) -> None:
        """Put one small file in one step."""

    @abstractmethod
    def _read(self, name: str) -> bytes | None:
        """A file, or None when it is not there. Raises StorageError."""

    def _list(self, names: set[str]) -> None:
        self._write(CONTENTS_FILE, CONTENTS.dump_json(sorted(names), indent=1))

    def _listed(self) -> set[str]:
        """Files that earlier results have put there; none where their list is missing or is no list of ours."""
        content = self._read(CONTENTS_FILE)
        if content is None:
            return set()
        try:
            return {name for name in CONTENTS.validate_json(content) if is_name_within(name)}
        except ValidationError:
            return set()

    @abstractmethod
    def link(self, name: str) -> str:
        """What a person opens to see a file of the result: a path or a link."""

    def read(self, name: str) -> bytes:
        """A file of the result. Raises StorageError."""
        content = self._read(name)
        if content is None:
            raise StorageError(f"{name} is not at {self.uri}.")
        return content


def is_name_within(name: str) -> bool:
    """Whether a name stays inside the folder. The list is not trusted: others may have written it."""
    try:
        return safe_name(name, MAX_KEY_BYTES) == name
    except UnsafeNameError:
        return False


def open_destination(name: str, workspace: Workspace) -> Destination:
    """The place of that name. Raises DestinationError when the name cannot be one."""
    if name.startswith("s3://"):
        return S3Destination(open_folder(name, workspace))
    if "://" in name:
        raise DestinationError(f"{name} cannot be written to: name a local folder or s3://bucket/prefix.")
    return LocalDestination(local_path(name).absolute(), workspace)


class LocalDestination(Destination):
    """A local folder, where files are replaced by renames."""

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

    def link(self, name: str) -> str:
        """A link where a web server shows the workspace's run folders and this is in one, else the path."""
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

    def _in_the_way(self, names: set[str], unlisted: set[str]) -> set[str]:
        """As in Destination. We make no links, so what lies behind one is another place."""
        others = {other.relative_to(self._folder).as_posix() for name in names for other in self._not_folders(name)}
        return others | {name for name in unlisted if os.path.lexists(self._folder / name)}

    def _put(self, result: Path, names: list[str]) -> None:
        """As in Destination, by a rename each."""
        for name in names:
            place = self._folder / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                (result / name).replace(place)
            except OSError as error:
                if is_disk_full(error):
                    raise
                raise DestinationError(
                    f"{place} cannot be written ({error.strerror}): move away what is in its place, or name another "
                    "destination."
                ) from error

    def _remove(self, names: list[str]) -> None:
        """As in Destination; folders that are empty then are removed too."""
        for name in names:
            if self._not_folders(name):
                continue
            place = self._folder / name
            with suppress(OSError):
                place.unlink()
                for parent in place.relative_to(self._folder).parents[:-1]:
                    (self._folder / parent).rmdir()  # refuses one that is not empty, which ends this

    def _write(self, name: str, content: bytes) -> None:
        """As in Destination."""
        with self.scratch() as partial:
            (partial / name).write_bytes(content)
            self._put(partial, [name])

    def _not_folders(self, name: str) -> list[Path]:
        """What is in place of folders of the result: files, and links, through which another place would change."""
        folders = [self._folder / parent for parent in PurePosixPath(name).parents[:-1]]
        return [folder for folder in folders if folder.is_symlink() or folder.is_file()]

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
    """A folder on S3, which replaces one object at a time, in one step."""

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

    def _in_the_way(self, names: set[str], unlisted: set[str]) -> set[str]:
        """As in Destination. The folders of a result are listed, not the whole place, which may be a large bucket."""
        folders = {name.partition("/")[0] for name in unlisted if "/" in name}
        below = {f"{folder}/{found.name}" for folder in folders for found in self._folder.below(folder).objects()}
        return unlisted & (below | {name for name in unlisted if "/" not in name and self._folder.head(name)})

    def _put(self, result: Path, names: list[str]) -> None:
        """As in Destination."""
        self._folder.upload(result, names)

    def _remove(self, names: list[str]) -> None:
        """As in Destination."""
        self._folder.delete(names)

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
