"""First half of the sfm stage: photos become cameras and sparse points, whatever size the images will have."""

import shutil
from pathlib import Path

from tasks.core.errors import DiskFullError, OutOfMemoryError, PhotosError, SfmCrashError, StageError
from tasks.core.measurements import SfmSection
from tasks.core.photoset import PHOTOS_FILE
from tasks.core.progress import ProgressCallback
from tasks.core.sfm.job import KEPT_DATABASE_FILE, CamerasJob
from tasks.core.sfm.kept_database import drop, take
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.process import run_worker
from tasks.core.storage.checkpoint_place import CheckpointPlace


def find_cameras(
    photos: Path, out: Path, options: SfmOptions, on_progress: ProgressCallback, kept: CheckpointPlace | None = None
) -> SfmSection:
    """Find the cameras of a photo set and write them as a COLMAP model, in the scene's frame.

    Args:
        photos: what `ingest` wrote.
        out: an empty or missing folder; receives `sparse/0`, `georeference.json` where there is one, and `sfm.log`.
        options: how cameras are found.
        on_progress: told percent of the whole stage, up to WORKER_PERCENT.
        kept: where the features of all photos are put when they are found, and taken from if they are there already:
            a place for these photos and options alone. If the worker fails with kept ones, they are dropped, and the
            error is raised as one that a retry may cure.

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
    job = CamerasJob(source=photos.resolve(), out=out.resolve(), options=options)
    job.work.mkdir(parents=True, exist_ok=True)
    try:
        section = _run_worker(job, on_progress, kept)
    finally:
        shutil.rmtree(job.work, ignore_errors=True)
    assert section is not None
    return section


def _run_worker(job: CamerasJob, on_progress: ProgressCallback, kept: CheckpointPlace | None) -> SfmSection | None:
    if kept is None or not take(kept, job.work / KEPT_DATABASE_FILE):
        return run_worker(job, on_progress, kept)
    try:
        return run_worker(job, on_progress, kept)
    except (OutOfMemoryError, DiskFullError):
        raise
    except StageError as error:
        drop(kept, "the run that used it failed")
        anew = "It began with features kept from an earlier run, which the next try finds anew."
        raise SfmCrashError(f"{error} {anew}") from error
