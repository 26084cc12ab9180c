"""Manifests of stage outputs, and names derived from content."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from tasks.core.errors import StorageError, UnsafeNameError
from tasks.core.safe_names import MAX_KEY_BYTES, safe_name

MANIFEST_FILE = "manifest.json"
MEASUREMENTS_FILE = "measurements.json"  # what the stage measured, for people


class StoredFile(BaseModel):
    """One file of an output."""

    model_config = ConfigDict(frozen=True)

    path: str  # relative, posix
    size: int
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        """Reject names that leave the folder: a manifest is read from a place that others may write."""
        try:
            return safe_name(path, MAX_KEY_BYTES)
        except UnsafeNameError as error:
            raise ValueError(str(error)) from error


class Manifest(BaseModel):
    """The files of an output and how it was made."""

    model_config = ConfigDict(frozen=True)

    stage: str
    files: tuple[StoredFile, ...]
    options: dict[str, JsonValue]
    code_version: str  # release of Spaceport / digest of the sources that made it
    library_versions: dict[str, str] = Field(default_factory=dict)  # of the libraries that made it
    backend: str | None = None  # "cpu" or "cuda" where that changes the output
    seconds: float  # wall time of the computation
    peak_memory_bytes: int | None = None  # of the computing process, with those that it starts
    cost_usd: float | None = None  # of the computing machine's time; null where no price is known
    part: str = Field(
        default="", pattern=r"^[0-9a-f]*$"
    )  # folder of the files beside the manifest; empty where they are beside it themselves

    @property
    def digest(self) -> str:
        """The sha256 over the files that later stages read, without logs and measurements.

        So another file that was not a photo, or a longer time, does not invalidate the outputs of later stages.
        """
        return _digest(file for file in self.files if file.path != MEASUREMENTS_FILE and not file.path.endswith(".log"))

    @property
    def full_digest(self) -> str:
        """The sha256 over the list of all files, which identifies copies."""
        return _digest(self.files)

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)


def _digest(files: Iterable[StoredFile]) -> str:
    lines = "".join(f"{file.sha256} {file.size} {file.path}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, files: Iterable[Path]) -> str:
    """The sha256 over the bytes of these files and their names below the folder, in whatever order they come."""
    lines = "".join(f"{hash_file(file)} {file.relative_to(folder).as_posix()}\n" for file in sorted(files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def cache_key(inputs: Sequence[str], options: dict[str, JsonValue], version: str) -> str:
    """The name of a stage's output: digests of its inputs, its options, and the version string of the stage's code."""
    text = json.dumps([list(inputs), options, version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def describe_output(
    folder: Path, stage: str, options: dict[str, JsonValue], code_version: str, seconds: float
) -> Manifest:
    """The manifest of a filled folder."""
    return Manifest(
        stage=stage,
        files=describe_files(folder),
        options=options,
        code_version=code_version,
        seconds=seconds,
    )


def describe_files(folder: Path) -> tuple[StoredFile, ...]:
    """All files below a folder, in the order of their names."""
    return tuple(
        StoredFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=hash_file(path))
        for path in sorted(path for path in folder.rglob("*") if path.is_file())
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Turn a filled folder into an output by writing its manifest."""
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")


def verify_output(folder: Path) -> Manifest:
    """Read an output's manifest and check every file against it.

    Raises StorageError when the manifest is missing or unreadable, or a file is missing or altered.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except OSError as error:
        raise StorageError(f"The stage output {folder} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise StorageError(f"{folder} contains no complete stage output; run again with --fresh.") from error
    altered = altered_file(folder, manifest.files)
    if altered is not None:
        raise StorageError(f"{altered} in {folder} is missing or altered; run again with --fresh.")
    return manifest


def altered_file(folder: Path, files: Iterable[StoredFile]) -> str | None:
    """The first file that is missing in a folder or differs; None when all are as described."""
    for stored in files:
        path = folder / stored.path
        if not path.is_file() or path.stat().st_size != stored.size or hash_file(path) != stored.sha256:
            return stored.path
    return None
