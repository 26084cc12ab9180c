"""The sfm stage: photos become a scene."""

from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.measurements import SfmSection
from tasks.core.photoset import PHOTOS_FILE
from tasks.core.progress import ProgressCallback
from tasks.core.sfm.job import Job
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.stage import run_job
from tasks.core.storage.workspace import CheckpointPlace


def reconstruct(
    photos: Path,
    out: Path,
    options: SfmOptions,
    image_size: int,
    on_progress: ProgressCallback,
    kept: CheckpointPlace | None = None,
) -> SfmSection:
    """Find the cameras of a photo set and write a Scene folder.

    Args:
        photos: what `ingest` wrote.
        out: an empty or missing folder; receives the scene (tasks.core.scene) and `sfm.log`.
        options: how cameras are found.
        image_size: long side of the undistorted images, at most (px).
        on_progress: told percent done.
        kept: where the features of all photos are put when they are found, and taken from if they are there already:
            a place for these photos and options alone.

    Returns:
        What was measured. `mean_reprojection_error_px` is in pixels of the photos as they came in.

    Raises:
        RegistrationError: too few photos can be placed.
        OptionsError: the options cannot be met with these photos.
        SfmCrashError: the worker process died in native code; the same again may succeed.
        OutOfMemoryError: memory did not suffice.
        StageError: the worker failed with a Python exception.
    """
    if not (photos / PHOTOS_FILE).is_file():
        raise PhotosError(f"{photos} is not a photo set: it has no {PHOTOS_FILE}, which the photos stage writes.")
    job = Job(kind="reconstruct", source=photos.resolve(), out=out.resolve(), options=options, image_size=image_size)
    return run_job(job, on_progress, kept)
