"""The photos stage: a folder or archive of files becomes a validated photo set in the workspace."""

import os
from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.measurements import PhotosSection
from tasks.core.photos.files import offered_photos
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.refs import PhotosRef, RunContext
from tasks.core.storage import hash_tree
from tasks.reporting import announce, stage_progress
from tasks.retries import stage_task
from tasks.stage import read_measurements, run_stage

STAGE = "photos"
VERSION = "2"


@stage_task(STAGE)
def ingest_photos(source: str, options: PhotosOptions, context: RunContext) -> PhotosRef:
    """Validate the photos of a folder or .zip and store them with what EXIF says. Raises PhotosError."""
    path = local_source(source)
    check_source(path)
    output = run_stage(
        STAGE,
        VERSION,
        context,
        inputs=[source_digest(path)],
        options=options.model_dump(mode="json"),
        compute=lambda folder: _ingest(path, folder, options),
    )
    measured = read_measurements(output.uri, PhotosSection, context)
    if output.cached:
        announce(STAGE, f"{measured.usable} photos, from the workspace")
    return PhotosRef.model_validate(
        {
            **output.as_ref_fields(),
            "capture": capture_name(path),
            "usable": measured.usable,
            "rejected": len(measured.rejected),
        }
    )


def _ingest(path: Path, folder: Path, options: PhotosOptions) -> PhotosSection:
    photos = ingest(path, folder, options, stage_progress(STAGE))
    return PhotosSection(found=photos.found, usable=len(photos.photos), rejected=photos.rejected)


def local_source(source: str) -> Path:
    """The local path of what the caller named. Raises PhotosError when it cannot be read from here."""
    if "://" in source:
        raise PhotosError(f"{source} is not on this machine; this version takes a folder or a .zip from local disk.")
    path = Path(source).expanduser()
    if not path.exists():
        raise PhotosError(f"{source} does not exist; give a folder or a .zip of photos.")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise PhotosError(f"{source} cannot be read: its owner has to permit it.")
    return path.resolve()


def check_source(path: Path) -> None:
    """What can be said about a source without decoding anything. Raises PhotosError."""
    if path.is_dir():
        offered_photos(path)


def source_digest(path: Path) -> str:
    """The sha256 over the source's names and bytes. Raises PhotosError for a file that cannot be read."""
    try:
        return hash_tree(path)
    except OSError as error:
        raise PhotosError(f"{error.filename} cannot be read ({error.strerror}): allow it, or take it away.") from error


def capture_name(path: Path) -> str:
    """What people call the capture: the folder's or archive's name; `images` and the like go by their parent's."""
    name = path.stem if path.is_file() else path.name
    return path.parent.name if name.lower() in {"images", "photos", "input"} and path.parent.name else name
