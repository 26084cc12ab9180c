"""Stage outputs in a workspace. The one module that knows key names.

    <root>/stages/<stage>/<cache key>/…  and manifest.json, which is written last: no manifest, no output
    <root>/runs/<run>/…                  what people look at

The workspace is a local folder; `s3://` roots are refused with a sentence until the S3 storage exists.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tasks.core.errors import DestinationError, StorageError

MANIFEST_FILE = "manifest.json"


class StoredFile(BaseModel):
    """One file of an output."""

    model_config = ConfigDict(frozen=True)

    path: str  # relative, posix
    size: int
    sha256: str


class Manifest(BaseModel):
    """What an output consists of and how it came about."""

    model_config = ConfigDict(frozen=True)

    stage: str
    files: tuple[StoredFile, ...]
    options: dict[str, JsonValue]
    code_version: str
    seconds: float  # wall time of the computation
    peak_memory_bytes: int | None = None  # of the computing process and its children
    cost_usd: float | None = None  # of the computing machine's time; null where no price is known

    @property
    def digest(self) -> str:
        """The sha256 over the file list, logs left out: when and how long does not make it another output."""
        content = (file for file in self.files if not file.path.endswith(".log"))
        lines = "".join(f"{file.sha256} {file.size} {file.path}\n" for file in content)
        return hashlib.sha256(lines.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(path: Path) -> str:
    """The sha256 of a file's bytes, or over the names and bytes of all files below a folder."""
    if path.is_file():
        return hash_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{hash_file(file)} {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def cache_key(inputs: Sequence[str], options: dict[str, JsonValue], version: str) -> str:
    """The name of a stage's output: digests of its inputs, its options, and the version string of the stage's code."""
    text = json.dumps([list(inputs), options, version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Workspace:
    """Stage outputs below one root folder."""

    def __init__(self, root: str) -> None:
        """Raises DestinationError for a root that is not a local folder."""
        if "://" in root:
            raise DestinationError(
                f"The workspace {root} is not a local folder; this version keeps stage outputs on local disk only."
            )
        self.root = Path(root).expanduser().resolve()

    def output_folder(self, stage: str, key: str) -> Path:
        """Where the output of a stage lies, or would lie."""
        return self.root / "stages" / stage / key

    def output_uri(self, stage: str, key: str) -> str:
        """What a Ref's `uri` says for that output."""
        return str(self.output_folder(stage, key))

    def fetch(self, uri: str) -> Path:
        """A local folder with a stored output, verified. Raises StorageError."""
        folder = Path(uri)
        verify_output(folder)
        return folder

    def read(self, uri: str, name: str) -> bytes:
        """One file of a stored output. Raises StorageError."""
        try:
            return (Path(uri) / name).read_bytes()
        except OSError as error:
            raise StorageError(f"{name} of {uri} cannot be read ({error.strerror}); run again with --fresh.") from error

    def run_uri(self, run: str) -> str:
        """The folder of what people look at in one run."""
        return str(self.root / "runs" / run)

    def write_run_file(self, run: str, name: str, content: bytes) -> None:
        """Put a file where people look at the run, in place of an older one. Raises DestinationError."""
        place = self.root / "runs" / run / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
            partial.write_bytes(content)
            partial.replace(place)
        except OSError as error:
            raise DestinationError(f"{place} cannot be written ({error.strerror}).") from error

    def read_run_file(self, run: str, name: str) -> bytes | None:
        """A file of the run's folder, or None when it is not there."""
        try:
            return (self.root / "runs" / run / name).read_bytes()
        except FileNotFoundError:
            return None

    def find(self, stage: str, key: str) -> Manifest | None:
        """The manifest of a complete, unaltered output, or None: an output with missing or altered files is a miss."""
        try:
            return verify_output(self.output_folder(stage, key))
        except StorageError:
            return None

    @contextmanager
    def new_output(self, stage: str, key: str) -> Iterator[Path]:
        """A fresh folder to fill; it is removed when the block ends, unless `commit` has moved it to its place.

        Raises DestinationError when the workspace cannot be written.
        """
        parent = self.output_folder(stage, key).parent
        folder = parent / f".{key}.{uuid.uuid4().hex[:8]}.partial"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise DestinationError(
                f"The workspace {self.root} cannot be written ({error.strerror}); name another one with --workspace."
            ) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, folder: Path, stage: str, key: str, manifest: Manifest, *, replace: bool = False) -> Manifest:
        """Write the manifest, move a filled folder to its place in one rename, and give the manifest that is there now.

        When another run got there first with a complete output, theirs stays and ours is dropped (same key, same
        content), unless `replace` says that ours shall take its place.
        """
        (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        place = self.output_folder(stage, key)
        if place.exists() and (replace or self.find(stage, key) is None):
            aside = place.with_name(f".{key}.{uuid.uuid4().hex[:8]}.old")
            place.rename(aside)
            shutil.rmtree(aside)
        try:
            folder.rename(place)
        except OSError:
            theirs = self.find(stage, key)
            if theirs is None:
                raise
            return theirs
        return manifest


def describe_output(
    folder: Path, stage: str, options: dict[str, JsonValue], code_version: str, seconds: float
) -> Manifest:
    """The manifest of a filled folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Manifest(
        stage=stage,
        files=tuple(
            StoredFile(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=hash_file(path))
            for path in files
        ),
        options=options,
        code_version=code_version,
        seconds=seconds,
    )


def verify_output(folder: Path) -> Manifest:
    """Read an output's manifest and check every file against it.

    Raises StorageError when the manifest is missing or unreadable, or a file is missing or altered.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(f"{folder} holds no complete stage output: {type(error).__name__}.") from error
    for stored in manifest.files:
        path = folder / stored.path
        if not path.is_file() or path.stat().st_size != stored.size or hash_file(path) != stored.sha256:
            raise StorageError(f"{stored.path} in {folder} is missing or altered; run again with --fresh.")
    return manifest
