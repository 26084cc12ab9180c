"""A workspace on S3.

    <root>/stages/<stage>/<cache key>/manifest.json      which part holds the files
    <root>/stages/<stage>/<cache key>/<part>/…           the files of one upload

S3 has no rename, so an upload never touches existing objects: it uses a part with a unique name. The manifest that
names the part is written last, on the condition that no other run was faster (If-None-Match, If-Match). This one object
decides which output exists: a reader sees the old manifest with the old files or the new one with the new files. A part
that no manifest names any more is removed by the run that lost or replaced it; its readers read the new manifest.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tasks.core.errors import SpaceportError, StorageError
from tasks.core.safe_names import below
from tasks.core.storage.manifest import MANIFEST_FILE, Manifest, altered_file
from tasks.core.storage.output_cache import OutputCache
from tasks.core.storage.s3_folder import S3Folder
from tasks.core.storage.workspace import (
    RUNS_FOLDER,
    CheckpointPlace,
    Workspace,
    checkpoints_name,
    output_name,
    run_name,
)

_ATTEMPTS = 10  # each lost to another run that replaced the output at the same moment
_RETRY_SECONDS = 2.0

Stored = TypeVar("Stored")


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


class S3Workspace(Workspace):
    """Stage outputs below one folder on S3, computed in and copied to a folder of this machine."""

    def __init__(self, root: S3Folder, cache: OutputCache, patience_seconds: float = 600.0) -> None:
        """`patience_seconds`: how long S3 may be gone while a computed output waits to be stored."""
        self.root = root
        self._cache = cache
        self._patience_seconds = patience_seconds
        self._known_writable = False

    def output_uri(self, stage: str, key: str) -> str:
        """`s3://…`."""
        return self.root.below(output_name(stage, key)).uri

    def find(self, stage: str, key: str) -> Manifest | None:
        """As in Workspace; sizes are compared and nothing is downloaded."""
        place = self.root.below(output_name(stage, key))
        for _ in range(_ATTEMPTS):
            manifest, etag = _current(place)
            if manifest is None or _is_whole(place, manifest):
                return manifest
            if _current(place)[1] == etag:
                return None
        return None

    @contextmanager
    def new_output(self, stage: str, key: str) -> Iterator[Path]:
        """As in Workspace. Raises DestinationError at once when the workspace cannot be written."""
        if not self._known_writable:
            self.root.require_writable()
            self._known_writable = True
        self._cache.make_room(0)
        with self._cache.scratch() as folder:
            yield folder

    def commit(self, folder: Path, stage: str, key: str, manifest: Manifest, *, replace: bool = False) -> Manifest:
        """As in Workspace; the folder becomes this machine's copy of what was uploaded."""
        place = self.root.below(output_name(stage, key))
        ours = manifest.model_copy(update={"part": uuid.uuid4().hex[:12]})
        names = [file.path for file in ours.files]
        part = place.below(ours.part)
        try:
            self._patiently(lambda: part.upload(folder, names))
        except BaseException:
            with suppress(SpaceportError):  # the first error is the one to hear of
                part.delete(names)
            raise
        there = self._patiently(lambda: _put_manifest(place, ours, replace))
        if there.part != ours.part:
            with suppress(SpaceportError):  # theirs is in place; what stays of ours costs space only
                part.delete(names)
            return there
        with suppress(SpaceportError, OSError):  # ours is in place; without a copy here it is downloaded
            self._cache.adopt(folder, ours)
        return ours

    def fetch(self, uri: str) -> Path:
        """As in Workspace; downloaded once a machine."""
        place = self._place(uri)
        for _ in range(_ATTEMPTS):
            manifest, etag = _current(place)
            if manifest is None:
                raise StorageError(f"{uri} holds no complete stage output; run again with --fresh.")
            copy = self._cache.get(manifest)
            if copy is not None:
                return copy
            try:
                return self._download(place, manifest)
            except StorageError:
                if _current(place)[1] == etag:
                    raise
        raise StorageError(f"{uri} was replaced again and again while it was read; try again.")

    def read(self, uri: str, name: str) -> bytes:
        """As in Workspace."""
        place = self._place(uri)
        for _ in range(_ATTEMPTS):
            manifest, etag = _current(place)
            stored = next((file for file in manifest.files if file.path == name), None) if manifest else None
            found = place.below(manifest.part).read(name) if manifest and stored else None
            if stored and found and sha256(found[0]).hexdigest() == stored.sha256:
                return found[0]
            if _current(place)[1] == etag:
                break
        raise StorageError(f"{name} of {uri} is missing or altered; run again with --fresh.")

    def remove_output(self, uri: str) -> None:
        """As in Workspace; the manifest is removed first, so that no reader finds an incomplete output."""
        place = self._place(uri)
        place.delete([MANIFEST_FILE])
        place.delete([found.name for found in place.objects()])

    def checkpoints(self, key: str, run: str | None = None) -> S3Checkpoints:
        """As in Workspace."""
        return S3Checkpoints(self.root.below(checkpoints_name(key, run)), self._cache)

    def remove_checkpoints(self, key: str) -> None:
        """As in Workspace."""
        place = self.root.below(checkpoints_name(key))
        place.delete([found.name for found in place.objects()])

    def run_uri(self, run: str) -> str:
        """`s3://…`."""
        return self.root.below(run_name(run)).uri

    def write_run_file(self, run: str, name: str, content: bytes) -> None:
        """As in Workspace."""
        self.root.below(run_name(run)).write(name, content)

    def read_run_file(self, run: str, name: str) -> bytes | None:
        """As in Workspace."""
        found = self.root.below(run_name(run)).read(name)
        return None if found is None else found[0]

    def run_names(self, prefix: str) -> list[str]:
        """As in Workspace."""
        return [found for found in self.root.below(RUNS_FOLDER).folders() if found.startswith(prefix)]

    def run_files(self, run: str) -> list[str]:
        """As in Workspace."""
        return [found.name for found in self.root.below(run_name(run)).objects()]

    def remove_run(self, run: str) -> None:
        """As in Workspace."""
        self.root.below(run_name(run)).delete(self.run_files(run))

    def run_file_url(self, run: str, name: str) -> str | None:
        """As in Workspace; a signed link of 7 days."""
        return self.root.below(run_name(run)).link(name)

    def _patiently(self, store: Callable[[], Stored]) -> Stored:
        """Try to store what was computed for as long as S3 may be gone: to compute it again would take longer."""
        end = time.monotonic() + self._patience_seconds
        while True:
            try:
                return store()
            except StorageError:
                if time.monotonic() > end:
                    raise
                time.sleep(_RETRY_SECONDS)

    def _place(self, uri: str) -> S3Folder:
        name = self.root.relative(uri)
        if not name:
            raise StorageError(f"{uri} is not in the workspace {self.root.uri}.")
        return self.root.below(name)

    def _download(self, place: S3Folder, manifest: Manifest) -> Path:
        self._cache.make_room(manifest.total_bytes)
        with self._cache.scratch() as folder:
            part = place.below(manifest.part)
            there = {found.name: found for found in part.objects()}
            for file in manifest.files:
                if file.path not in there:
                    raise StorageError(f"{file.path} of {place.uri} is gone; run again with --fresh.")
            part.download(
                [(there[file.path], folder / file.path) for file in manifest.files], needed_bytes=manifest.total_bytes
            )
            altered = altered_file(folder, manifest.files)
            if altered is not None:
                raise StorageError(f"{altered} of {place.uri} is not what it was when it was stored; use --fresh.")
            return self._cache.adopt(folder, manifest)


def _current(place: S3Folder) -> tuple[Manifest | None, str | None]:
    """The manifest that is there, None when there is none that can be read; and the object's ETag, None without one."""
    found = place.read(MANIFEST_FILE)
    if found is None:
        return None, None
    try:
        return Manifest.model_validate_json(found[0]), found[1]
    except ValidationError:
        return None, found[1]


def _is_whole(place: S3Folder, manifest: Manifest) -> bool:
    """Whether every file of the manifest's part is there with its size."""
    sizes = {found.name: found.size for found in place.below(manifest.part).objects()}
    return all(sizes.get(file.path) == file.size for file in manifest.files)


def _put_manifest(place: S3Folder, ours: Manifest, replace: bool) -> Manifest:
    """Put our manifest, unless a whole output is there that shall stay; the manifest that is there then."""
    content = ours.model_dump_json(indent=1).encode()
    theirs: Manifest | None = None
    etag: str | None = None
    for _ in range(_ATTEMPTS):
        if place.write(MANIFEST_FILE, content, only_over=etag):
            if theirs is not None:
                replaced = place.below(theirs.part)
                with suppress(SpaceportError):  # ours is in place; what stays of theirs costs space only
                    replaced.delete([found.name for found in replaced.objects()])
            return ours
        theirs, etag = _current(place)
        if theirs is not None and theirs.part == ours.part:
            return ours  # our put had succeeded, only its answer was lost and boto3 tried again
        if theirs is not None and not replace and _is_whole(place, theirs):
            return theirs
    raise StorageError(f"{place.uri} was replaced {_ATTEMPTS} times while it was stored; try again.")
