"""The two kinds of places for checkpoints: a local folder, and a folder on S3."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tasks.core.errors import StorageError
from tasks.core.safe_names import below
from tasks.core.storage.checkpoint_place import CheckpointPlace
from tasks.core.storage.disk import flush, watching_disk
from tasks.core.storage.folder_locks import working_folder
from tasks.core.storage.output_cache import OutputCache
from tasks.core.storage.s3_folder import S3Folder

_PARTIAL = ".partial"


class LocalCheckpoints(CheckpointPlace):
    """In a local folder, which is made when the first one is written."""

    is_remote = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As in CheckpointPlace; on the same disk. What killed processes left is removed."""
        with watching_disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with working_folder(self._folder, ".", _PARTIAL) as folder:
                yield folder

    def names(self) -> list[str]:
        """As in CheckpointPlace."""
        with suppress(FileNotFoundError):
            names = (entry.name for entry in self._folder.iterdir() if entry.is_file())
            return sorted((name for name in names if not name.startswith(".")), reverse=True)  # locks are hidden
        return []

    def put(self, file: Path) -> None:
        """As in CheckpointPlace; on the disk when it returns: first its bytes, then its name."""
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


class S3Checkpoints(CheckpointPlace):
    """Below a folder on S3."""

    is_remote = True

    def __init__(self, folder: S3Folder, cache: OutputCache) -> None:
        self._folder = folder
        self._cache = cache

    def scratch(self) -> AbstractContextManager[Path]:
        """As in CheckpointPlace; where local copies of outputs lie."""
        return self._cache.scratch()

    def names(self) -> list[str]:
        """As in CheckpointPlace."""
        return sorted((found.name for found in self._folder.objects() if "/" not in found.name), reverse=True)

    def put(self, file: Path) -> None:
        """As in CheckpointPlace; returns when it is uploaded."""
        self._folder.upload(file.parent, [file.name])

    def get(self, name: str, scratch: Path) -> Path:
        """A copy. Raises StorageError when it cannot be read to its end."""
        found = self._folder.head(name)
        if found is None:
            raise StorageError(f"{self._folder.uri}/{name} is gone.")
        copy = below(scratch, name)
        self._folder.download([(found, copy)])
        return copy

    def remove(self, names: list[str]) -> None:
        """As in CheckpointPlace."""
        self._folder.delete(names)
