"""The interface of a workspace, on a local disk or on S3.

    <root>/stages/<stage>/<cache key>/…            a stage's output and its manifest.json, which is written last
    <root>/runs/<run>/…                            files of a run for people
    <root>/checkpoints/<cache key>/<name>          checkpoints for any run that computes this output
    <root>/checkpoints/<cache key>/<run>/<name>    checkpoints of a run that recomputes everything, for that run only

Key names are made here. The page server of `spaceport up` and AWS's lifecycle rules know the name `runs` too. Names of
checkpoints sort by age. Several runs may work on one output, and each may continue from another's checkpoint.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from tasks.core.errors import UnsafeNameError
from tasks.core.safe_names import safe_name, shown
from tasks.core.storage.manifest import Manifest


class CheckpointPlace(ABC):
    """A few files that appear whole or not at all. Raises the errors of Workspace, and OSError of a local disk."""

    is_remote: bool  # whether `put` is so slow that it should run in a thread

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder to write a checkpoint in. It is removed at the end of the block."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the stored checkpoints, newest first."""

    @abstractmethod
    def put(self, file: Path) -> None:
        """Store a file of a scratch folder under its own name; an older one of that name is replaced."""

    @abstractmethod
    def get(self, name: str, scratch: Path) -> Path:
        """A local file with a checkpoint's bytes: the file itself, or a copy in the scratch folder."""

    @abstractmethod
    def remove(self, names: list[str]) -> None:
        """Remove checkpoints; missing ones are ignored."""


RUNS_FOLDER, STAGES_FOLDER, CHECKPOINTS_FOLDER = "runs", "stages", "checkpoints"
LINK_SECONDS = 7 * 24 * 3600  # lifetime of a link to a stored file; the longest that S3 signs


def output_name(stage: str, key: str) -> str:
    """The path of a stage's output below the root. Raises UnsafeNameError."""
    return f"{STAGES_FOLDER}/{_part(stage)}/{_part(key)}"


def run_name(run: str) -> str:
    """The path of a run's folder below the root. Raises UnsafeNameError."""
    return f"{RUNS_FOLDER}/{_part(run)}"


def checkpoints_name(key: str, run: str | None = None) -> str:
    """The path of an output's checkpoints below the root; with `run`, of the checkpoints for that run only.

    Raises UnsafeNameError.
    """
    return f"{CHECKPOINTS_FOLDER}/{_part(key)}" if run is None else f"{CHECKPOINTS_FOLDER}/{_part(key)}/{_part(run)}"


def _part(name: str) -> str:
    """Return the name if it is a single part of a path. Raises UnsafeNameError for any other."""
    if safe_name(name) != name or "/" in name:
        raise UnsafeNameError(f"{shown(name)} is not a name for a folder of a workspace.")
    return name


class Workspace(ABC):
    """Stage outputs and run folders below one root.

    Every method raises StorageError (a retry can help) when the workspace cannot be reached, DestinationError when it
    denies access, and DiskFullError when a disk of this machine is full.
    """

    @abstractmethod
    def output_uri(self, stage: str, key: str) -> str:
        """The `uri` of a Ref to the output of a stage."""

    @abstractmethod
    def find(self, stage: str, key: str) -> Manifest | None:
        """The manifest of a complete output, or None: an output with missing or altered files is a miss."""

    @abstractmethod
    def new_output(self, stage: str, key: str) -> AbstractContextManager[Path]:
        """A fresh local folder to fill. It is removed at the end of the block, unless `commit` has taken it."""

    @abstractmethod
    def commit(self, folder: Path, stage: str, key: str, manifest: Manifest, *, replace: bool = False) -> Manifest:
        """Store a filled folder and return the manifest that is stored now.

        If another run has already stored a complete output, that one stays and ours is dropped (same key, same
        content), unless `replace` is true.
        """

    @abstractmethod
    def fetch(self, uri: str) -> Path:
        """A local folder with a stored output, verified by sha256. Raises StorageError when it is incomplete."""

    @abstractmethod
    def read(self, uri: str, name: str) -> bytes:
        """One file of a stored output. Raises StorageError."""

    @abstractmethod
    def remove_output(self, uri: str) -> None:
        """Remove a stored output; a missing one is ignored."""

    @abstractmethod
    def checkpoints(self, key: str, run: str | None = None) -> CheckpointPlace:
        """The place for checkpoints of the output with this key; with `run`, for checkpoints for that run only."""

    @abstractmethod
    def remove_checkpoints(self, key: str) -> None:
        """Remove all checkpoints of an output, of all runs."""

    @abstractmethod
    def run_uri(self, run: str) -> str:
        """The folder with a run's files for people."""

    @abstractmethod
    def write_run_file(self, run: str, name: str, content: bytes) -> None:
        """Write a file into the run's folder; an older one of that name is replaced."""

    @abstractmethod
    def read_run_file(self, run: str, name: str) -> bytes | None:
        """A file of the run's folder, or None if it is missing."""

    @abstractmethod
    def run_names(self, prefix: str) -> list[str]:
        """The names of runs that begin with `prefix`."""

    @abstractmethod
    def run_files(self, run: str) -> list[str]:
        """The names of all files in a run's folder."""

    @abstractmethod
    def remove_run(self, run: str) -> None:
        """Remove a run's folder with everything in it; outputs of stages stay."""

    @abstractmethod
    def run_file_url(self, run: str, name: str) -> str | None:
        """A link that a browser opens, whether or not the file is there yet; None where nothing serves the folder."""
