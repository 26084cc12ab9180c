"""The photos stage: a folder or archive of files becomes a validated photo set in the workspace."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tasks.core.errors import PhotosError
from tasks.core.measurements import PhotosSection
from tasks.core.paths import local_path
from tasks.core.photos.files import file_names, is_raw_name, offered_photos
from tasks.core.photos.flight_log import log_among, log_on_machine, require_log_file
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ProgressCallback
from tasks.core.refs import PhotosRef, RunContext
from tasks.core.safe_names import below, printable
from tasks.core.stage_code import StageCode
from tasks.core.storage import hash_file, hash_files
from tasks.places.remote_photos import RemotePhotos, find_photos
from tasks.places.workspace import open_workspace
from tasks.reporting.progress import stage_progress
from tasks.running.stage import Stage, run_stage

PHOTOS = Stage(
    "photos",
    StageCode(("tasks.core.photos.ingest", "tasks.core.measurements"), ("PIL", "pillow_heif", "numpy")),
    PhotosSection,
)
UNNAMED_CAPTURE = "capture"


@PHOTOS.task
def ingest_photos(source: str, options: PhotosOptions, context: RunContext) -> PhotosRef:
    """Validate the photos of a folder or .zip, local or on S3, and store them with what EXIF says.

    Raises PhotosError.
    """
    log = log_on_machine(options.flight_log, relative=not is_remote_source(source))
    among = "" if log else options.flight_log
    found = options.model_copy(update={"flight_log": str(log)}) if log else options
    offered = open_source(source, context.workspace, among)
    capture = capture_name(source)
    output = run_stage(
        PHOTOS,
        context,
        inputs=[
            *([offered.digest] if isinstance(offered, RemotePhotos) else _local_inputs(offered, among)),
            *([digest_of(log, [log])] if log else []),
        ],
        options=options.model_dump(mode="json"),
        compute=lambda folder: _ingest(offered, capture, folder, found),
    )
    measured = PHOTOS.measured(output, context)
    return PhotosRef.of(output, capture=capture, usable=measured.usable, rejected=len(measured.rejected))


def _ingest(offered: Path | RemotePhotos, capture: str, folder: Path, options: PhotosOptions) -> PhotosSection:
    report = stage_progress(PHOTOS.name)
    if isinstance(offered, RemotePhotos):
        # Inside the output's folder: what an interrupted run leaves goes with it.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            section = _ingest_local(offered.download(below(Path(temporary), capture), report), folder, options, report)
        refused = offered.rejected
        return section.model_copy(
            update={"found": section.found + len(refused), "rejected": (*section.rejected, *refused)}
        )
    return _ingest_local(offered, folder, options, report)


def _ingest_local(source: Path, folder: Path, options: PhotosOptions, report: ProgressCallback) -> PhotosSection:
    photos = ingest(source, folder, options, report)
    return PhotosSection(
        found=photos.found, usable=len(photos.photos), rejected=photos.rejected, flight_log=photos.flight_log
    )


def _local_inputs(source: Path, flight_log: str) -> list[str]:
    """Inputs that name the output of local photos: the bytes of every file that is read, and the names of other photos.

    Those are raw files and pipes. Other files beside the photos, such as videos, are not read. `flight_log`:
    photos.flight_log, where it is one of the photos' folder.
    """
    if source.is_file():
        return [digest_of(source, [source])]
    offered = offered_photos(source)
    read = [photo.path for photo in offered if not is_raw_name(photo.name) and photo.path.is_file()]
    log = log_among(flight_log, file_names(source))
    if log:
        require_log_file(source / log)
    digest = digest_of(source, [*read, source / log] if log else read)
    known = set(read)
    return [digest, *(printable(photo.name) for photo in offered if photo.path not in known)]


def is_remote_source(source: str) -> bool:
    """Whether the photos do not lie on this machine."""
    return "://" in source


def open_source(source: str, workspace: str, flight_log: str = "") -> Path | RemotePhotos:
    """What the caller named, checked without decoding or downloading anything.

    `flight_log` is looked for among photos on S3. Raises PhotosError when the place does not exist, cannot be read, or
    holds no photos.
    """
    if is_remote_source(source):
        return find_photos(source, open_workspace(workspace), flight_log)
    path = local_source(source)
    if path.is_dir():
        offered_photos(path)
    return path


def local_source(source: str) -> Path:
    """The absolute path of a local source. Raises PhotosError when it cannot be read."""
    path = local_path(source)
    if not path.exists():
        raise PhotosError(f"{source} does not exist; give a folder or a .zip of photos.")
    if not path.is_dir() and not path.is_file():  # a pipe, from which reading may never end
        raise PhotosError(f"{source} is neither a folder nor a regular file; give a folder or a .zip of photos.")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise PhotosError(f"{source} cannot be read: its owner has to permit it.")
    return path.resolve()


def digest_of(source: Path, files: Iterable[Path]) -> str:
    """The sha256 over names and bytes of files below the source, or of the source itself where it is a file.

    Raises PhotosError for a file that cannot be read.
    """
    try:
        return hash_file(source) if source.is_file() else hash_files(source, filter(Path.is_file, files))
    except OSError as error:
        raise PhotosError(f"{error.filename} cannot be read ({error.strerror}): allow it, or take it away.") from error


def capture_name(source: str | Path) -> str:
    """The capture's name for people: the folder's or archive's, or the parent's where that is `images` or the like.

    It names the default output folder, so it is never `..` (the stem of `...zip`) nor empty. An archive that is gone
    keeps its name, by which the run's folder is found.
    """
    if isinstance(source, str) and is_remote_source(source):
        path = PurePosixPath(source.partition("://")[2])
        is_archive = path.suffix.lower() == ".zip"
    else:
        local = local_path(str(source)).absolute()
        path = PurePosixPath(local)
        is_archive = path.suffix.lower() == ".zip" and not local.is_dir()
    name = path.stem if is_archive else path.name
    name = path.parent.name if name.lower() in {"images", "photos", "input"} and path.parent.name else name
    return printable(name) if name.strip(".") else UNNAMED_CAPTURE
