"""The photos stage: a folder or archive of files becomes a validated photo set in the workspace."""

import os
import tempfile
from pathlib import Path, PurePosixPath

from tasks.core.errors import PhotosError
from tasks.core.measurements import PhotosSection
from tasks.core.photos.files import offered_photos
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ProgressCallback
from tasks.core.refs import PhotosRef, RunContext
from tasks.core.stage_code import StageCode
from tasks.core.storage import hash_tree
from tasks.remote_photos import RemotePhotos, find_photos
from tasks.reporting import announce, stage_progress
from tasks.retries import stage_task
from tasks.stage import read_measurements, run_stage
from tasks.workspace import open_workspace

STAGE = "photos"
CODE = StageCode(("tasks.core.photos.ingest", "tasks.core.measurements"), ("PIL", "pillow_heif", "numpy"))


@stage_task(STAGE)
def ingest_photos(source: str, options: PhotosOptions, context: RunContext) -> PhotosRef:
    """Validate the photos of a folder or .zip, local or on S3, and store them with what EXIF says.

    Raises PhotosError.
    """
    offered = open_source(source, context.workspace)
    capture = capture_name(source)
    output = run_stage(
        STAGE,
        CODE,
        context,
        inputs=[offered.digest if isinstance(offered, RemotePhotos) else source_digest(offered), *_log_digest(options)],
        options=options.model_dump(mode="json"),
        compute=lambda folder: _ingest(offered, capture, folder, options),
    )
    measured = read_measurements(output.uri, PhotosSection, context)
    if output.cached:
        announce(STAGE, f"{measured.usable} photos, from the workspace")
    return PhotosRef.model_validate(
        {
            **output.as_ref_fields(),
            "capture": capture,
            "usable": measured.usable,
            "rejected": len(measured.rejected),
        }
    )


def _ingest(offered: Path | RemotePhotos, capture: str, folder: Path, options: PhotosOptions) -> PhotosSection:
    report = stage_progress(STAGE)
    if isinstance(offered, RemotePhotos):
        # Inside the output's folder: what an interrupted run leaves goes with it.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            return _ingest_local(offered.download(Path(temporary) / capture, report), folder, options, report)
    return _ingest_local(offered, folder, options, report)


def _ingest_local(source: Path, folder: Path, options: PhotosOptions, report: ProgressCallback) -> PhotosSection:
    photos = ingest(source, folder, options, report)
    return PhotosSection(
        found=photos.found, usable=len(photos.photos), rejected=photos.rejected, flight_log=photos.flight_log
    )


def _log_digest(options: PhotosOptions) -> list[str]:
    """What names the output beside the photos: the flight log's content, where it does not lie among them."""
    path = Path(options.flight_log).expanduser()
    return [source_digest(path)] if options.flight_log and path.is_file() else []


def is_remote_source(source: str) -> bool:
    """Whether the photos do not lie on this machine."""
    return "://" in source


def open_source(source: str, workspace: str) -> Path | RemotePhotos:
    """What the caller named, checked without decoding or downloading anything.

    Raises PhotosError when it does not exist, cannot be read, or holds no photos.
    """
    if is_remote_source(source):
        return find_photos(source, open_workspace(workspace))
    path = local_source(source)
    if path.is_dir():
        offered_photos(path)
    return path


def local_source(source: str) -> Path:
    """The absolute path of a local source. Raises PhotosError when it cannot be read."""
    path = Path(source).expanduser()
    if not path.exists():
        raise PhotosError(f"{source} does not exist; give a folder or a .zip of photos.")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise PhotosError(f"{source} cannot be read: its owner has to permit it.")
    return path.resolve()


def source_digest(path: Path) -> str:
    """The sha256 over the source's names and bytes. Raises PhotosError for a file that cannot be read."""
    try:
        return hash_tree(path)
    except OSError as error:
        raise PhotosError(f"{error.filename} cannot be read ({error.strerror}): allow it, or take it away.") from error


def capture_name(source: str | Path) -> str:
    """What people call the capture: the folder's or archive's name; `images` and the like go by their parent's."""
    if isinstance(source, str) and is_remote_source(source):
        path = PurePosixPath(source.partition("://")[2])
        is_file = path.suffix.lower() == ".zip"
    else:
        local = Path(source).expanduser().absolute()
        path, is_file = PurePosixPath(local), local.is_file()
    name = path.stem if is_file else path.name
    return path.parent.name if name.lower() in {"images", "photos", "input"} and path.parent.name else name
