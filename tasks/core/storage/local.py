"""A workspace in a local folder, and checkpoints in one."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from urllib.parse import quote

from tasks.core.errors import DestinationError, StorageError
from tasks.core.safe_names import below
from tasks.core.storage.disk import flush, is_disk_full, watching_disk
from tasks.core.storage.locks import working_folder
from tasks.core.storage.manifest import Manifest, verify_output, write_manifest
from tasks.core.storage.workspace import (
    RUNS_FOLDER,
    STAGES_FOLDER,
    CheckpointPlace,
    Workspace,
    checkpoints_name,
    output_name,
    run_name,
)

_ROOT_MODE = 0o700  # photos, results and links are private; an existing root keeps its mode
_COMMIT_ATTEMPTS = 20  # each lost to another run that moved at the same moment


class LocalCheckpoints(CheckpointPlace):
    """Checkpoints in a local folder, which is created with the first one."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As in CheckpointPlace; on the same disk. Remains of killed processes are removed."""
        with watching_disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with working_folder(self._folder, ".", ".partial") as folder:
                yield folder

    def names(self) -> list[str]:
        """As in CheckpointPlace."""
        with suppress(FileNotFoundError):
            names = (entry.name for entry in self._folder.iterdir() if entry.is_file())
            return sorted((name for name in names if not name.startswith(".")), reverse=True)  # locks are hidden
        return []

    def put(self, file: Path) -> None:
        """As in CheckpointPlace. Flushed to the disk when it returns: first its bytes, then its name."""
        flush(file)
        file.replace(self._folder / file.name)
        flush(self._folder)

    def get(self, name: str, scratch: Path) -> Path:
        """The file itself."""
        return self._folder / name

    def remove(self, names: list[str]) -> None:
        """As in CheckpointPlace."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)


class LocalWorkspace(Workspace):
    """Stage outputs below one local folder. An output appears in one rename, with its manifest in it."""

    def __init__(self, root: str | Path, pages_url: str | None = None) -> None:
        """`pages_url` is the address of a web server that shows the folder `runs`."""
        self.root = Path(root).expanduser().resolve()
        self._pages_url = pages_url

    def output_folder(self, stage: str, key: str) -> Path:
        """The folder of a stage's output, whether or not it exists."""
        return self.root / output_name(stage, key)

    def output_uri(self, stage: str, key: str) -> str:
        """The folder's path."""
        return str(self.output_folder(stage, key))

    def find(self, stage: str, key: str) -> Manifest | None:
        """As in Workspace; every file is read and hashed."""
        try:
            return verify_output(self.output_folder(stage, key))
        except StorageError:
            return None

    @contextmanager
    def new_output(self, stage: str, key: str) -> Iterator[Path]:
        """As in Workspace; the folder is next to the output's final place, on the same disk.

        Remains of killed processes there are removed.
        """
        parent = self.output_folder(stage, key).parent
        with ExitStack() as stack:
            try:
                stack.enter_context(watching_disk(parent))
                self._make(parent)
                folder = stack.enter_context(working_folder(parent, ".", ".partial"))
            except OSError as error:
                if is_disk_full(error):
                    raise
                raise DestinationError(
                    f"The workspace {self.root} cannot be written ({error.strerror}); "
                    "name another one with --workspace."
                ) from error
            yield folder

    def commit(self, folder: Path, stage: str, key: str, manifest: Manifest, *, replace: bool = False) -> Manifest:
        """As in Workspace; the folder is moved to its place."""
        with watching_disk(folder.parent):
            write_manifest(folder, manifest)
        place = self.output_folder(stage, key)
        for _ in range(_COMMIT_ATTEMPTS):
            with suppress(OSError):  # another output is already there
                folder.rename(place)
                return manifest
            theirs = None if replace else self.find(stage, key)
            if theirs is not None:
                return theirs
            aside = place.with_name(f".{key}.{uuid.uuid4().hex[:8]}.old")
            with suppress(FileNotFoundError):  # another run was quicker to put it aside
                place.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        raise StorageError(f"{place} could not be replaced in {_COMMIT_ATTEMPTS} attempts; is it writable?")

    def fetch(self, uri: str) -> Path:
        """The stored folder itself."""
        folder = self._place(uri)
        verify_output(folder)
        return folder

    def read(self, uri: str, name: str) -> bytes:
        """As in Workspace."""
        try:
            return below(self._place(uri), name).read_bytes()
        except OSError as error:
            raise StorageError(f"{name} of {uri} cannot be read ({error.strerror}); run again with --fresh.") from error

    def remove_output(self, uri: str) -> None:
        """As in Workspace."""
        shutil.rmtree(self._place(uri), ignore_errors=True)

    def checkpoints(self, key: str, run: str | None = None) -> LocalCheckpoints:
        """As in Workspace."""
        return LocalCheckpoints(self.root / checkpoints_name(key, run))

    def remove_checkpoints(self, key: str) -> None:
        """As in Workspace."""
        shutil.rmtree(self.root / checkpoints_name(key), ignore_errors=True)

    def run_uri(self, run: str) -> str:
        """The folder's path."""
        return str(self.root / run_name(run))

    def write_run_file(self, run: str, name: str, content: bytes) -> None:
        """As in Workspace; readers see either the complete old file or the complete new one."""
        place = below(self.root / run_name(run), name)
        partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
        with watching_disk(place.parent, len(content)):
            try:
                self._make(place.parent)
                partial.write_bytes(content)
                partial.replace(place)
            except OSError as error:
                with suppress(OSError):
                    partial.unlink()
                if is_disk_full(error):
                    raise
                raise DestinationError(f"{place} cannot be written ({error.strerror}).") from error

    def read_run_file(self, run: str, name: str) -> bytes | None:
        """As in Workspace."""
        try:
            return below(self.root / run_name(run), name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{name} of run {run} cannot be read ({error.strerror}).") from error

    def run_names(self, prefix: str) -> list[str]:
        """As in Workspace."""
        return sorted(place.name for place in (self.root / RUNS_FOLDER).glob(f"{escape(prefix)}*"))

    def run_files(self, run: str) -> list[str]:
        """As in Workspace."""
        folder = self.root / run_name(run)
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def remove_run(self, run: str) -> None:
        """As in Workspace."""
        shutil.rmtree(self.root / run_name(run), ignore_errors=True)

    def run_file_url(self, run: str, name: str) -> str | None:
        """As in Workspace; only where a pages server is configured."""
        return None if self._pages_url is None else f"{self._pages_url.rstrip('/')}/{quote(f'{run}/{name}')}"

    def page_url(self, path: Path) -> str | None:
        """Return the link to a file below the folder `runs`; None for other files, or without a pages server."""
        runs = self.root / RUNS_FOLDER
        if not path.resolve().is_relative_to(runs):
            return None
        run, _, name = path.resolve().relative_to(runs).as_posix().partition("/")
        return self.run_file_url(run, name)

    def _make(self, folder: Path) -> None:
        """Make a folder of the workspace. A new root is private. Raises OSError."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(mode=_ROOT_MODE, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)

    def _place(self, uri: str) -> Path:
        """Return the folder of an output. Raises StorageError for a path outside the folder of all outputs."""
        folder = Path(uri).resolve()
        outputs = self.root / STAGES_FOLDER
        if folder == outputs or not folder.is_relative_to(outputs):
            raise StorageError(f"{uri} is not an output in the workspace {self.root}.")
        return folder
