"""The interface of validation: start a capture in the same way as the workspace's users, and read its result."""

import shutil
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import StorageError
from tasks.core.options import ReconstructOptions
from tasks.core.storage import LocalWorkspace, S3Workspace, Workspace
from tasks.places.destination import Destination, open_destination
from tasks.running.run_folder import remove_run

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Fetched:
    """The response to a link. `kind` is the content type; empty for a file of this machine."""

    content: bytes
    kind: str


@dataclass(frozen=True)
class Published:
    """Places of a run's result, as reported by the run."""

    place: Destination
    page: str  # links, or paths on this machine
    report: str
    run: str | None = None  # its id on the Prefect server


def fetch(link: str) -> Fetched:
    """Get a link or read a path. Raises StorageError with the reason."""
    try:
        if not link.startswith(("http://", "https://")):
            return Fetched(Path(link).read_bytes(), "")
        with urllib.request.urlopen(link, timeout=TIMEOUT_SECONDS) as answer:
            return Fetched(answer.read(), answer.headers.get_content_type())
    except urllib.error.HTTPError as error:
        raise StorageError(f"HTTP {error.code} ({error.reason})") from error
    except OSError as error:  # urllib's own errors are among them
        raise StorageError(str(error)) from error


PLACE = "validation"  # below the workspace, for photos and results of validations


class RunFailedError(Exception):
    """The run of the validation ended badly; the text says how."""


class Way(ABC):
    """From photos on this machine to a published result. `capture` is a name that nothing else has."""

    describes: str  # for people

    def __init__(self, store: Workspace, capture: str) -> None:
        self.store, self.capture = store, capture

    @abstractmethod
    def start(self, photos: Path, options: ReconstructOptions) -> None:
        """Bring the photos there and start the run."""

    @abstractmethod
    def ended(self) -> Published | None:
        """What came of it; None while it works. Raises RunFailedError."""

    @abstractmethod
    def waits_for(self) -> str:
        """What is waited for now, in a few words."""

    @abstractmethod
    def stop(self) -> bool:
        """End a run that took too long; False when it may go on and make more."""

    @abstractmethod
    def remove_places(self) -> None:
        """Remove photos and result."""

    def clean_up(self) -> int:
        """Remove all that was made: photos, result, the runs' folders, and their stages' outputs, which are counted."""
        self.remove_places()
        return sum(remove_run(self.store, run) for run in self.store.run_names(f"{self.capture}-"))


class InWorkspace(Way):
    """Photos and result in the workspace itself, for the ways that name both to the run."""

    def __init__(self, store: Workspace, capture: str) -> None:
        super().__init__(store, capture)
        assert isinstance(store, LocalWorkspace | S3Workspace)
        self._root = store.root
        root = str(self._root) if isinstance(self._root, Path) else self._root.uri
        self.photos, self.destination = (f"{root}/{PLACE}/{capture}/{part}" for part in ("photos", "splat"))

    def bring(self, photos: Path) -> None:
        """Bring the photos into the workspace."""
        if isinstance(self._root, Path):
            shutil.copytree(photos, self.photos)
        else:
            self._root.below(f"{PLACE}/{self.capture}/photos").upload(photos, names_below(photos))

    def published(self, run: str | None = None) -> Published:
        """The result of a run that has ended well."""
        place = open_destination(self.destination, self.store)
        return Published(place, place.link("index.html"), place.link("report.html"), run)

    def remove_places(self) -> None:
        """As in Way."""
        if isinstance(self._root, Path):
            shutil.rmtree(self._root / PLACE / self.capture, ignore_errors=True)
            if (self._root / PLACE).is_dir() and not any((self._root / PLACE).iterdir()):
                (self._root / PLACE).rmdir()
        else:
            place = self._root.below(f"{PLACE}/{self.capture}")
            place.delete([found.name for found in place.objects()])


def names_below(folder: Path) -> list[str]:
    """The files of a folder, posix."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
