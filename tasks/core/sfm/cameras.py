"""First half of the sfm stage: cameras and sparse points of the photos, for images of any size.

Features and matches of a run that was ended are kept for the next one, checked before use, and dropped when they fail.
Their place is named by the cache key of the cameras, so other photos, options, code or libraries do not find them.
A place that cannot be written or read costs a warning and never the reconstruction.
"""

import logging
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from tasks.core.errors import DiskFullError, OutOfMemoryError, PhotosError, SfmCrashError, SpaceportError, StageError
from tasks.core.measurements import SfmSection
from tasks.core.photoset import PHOTOS_FILE
from tasks.core.progress import ProgressCallback
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.process import run_worker
from tasks.core.sfm.worker import DATABASE_FILE, KEPT_DATABASE_FILE, KEPT_PARTS_FOLDER, PART_ENDING, CamerasJob
from tasks.core.storage.workspace import CheckpointPlace

logger = logging.getLogger(__name__)

TABLES = {"cameras", "images", "keypoints", "descriptors", "matches", "two_view_geometries"}


def find_cameras(
    photos: Path, out: Path, options: SfmOptions, on_progress: ProgressCallback, kept: CheckpointPlace | None = None
) -> SfmSection:
    """Find the cameras of a photo set and write them as a COLMAP model, in the scene's frame.

    Args:
        photos: what `ingest` wrote.
        out: an empty or missing folder; receives `sparse/0`, `georeference.json` where there is one, and `sfm.log`.
        options: how cameras are found.
        on_progress: told percent of the whole stage, up to WORKER_PERCENT.
        kept: receives features and matches when they are found, and is where an earlier run's are taken from. The
            place must be for these photos and options alone. If the worker fails with kept features, they are dropped,
            and the error is one that a retry may cure.

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
    if kept is None or not take(kept, job.work / KEPT_DATABASE_FILE):  # parts without their database are of no use
        return run_worker(job, on_progress, lambda: _keep_news(job, kept))
    try:
        return run_worker(job, on_progress, lambda: _keep_news(job, kept))
    except (OutOfMemoryError, DiskFullError):
        raise
    except StageError as error:
        drop(kept, "the run that used it failed")
        anew = "It began with features kept from an earlier run, which the next try finds anew."
        raise SfmCrashError(f"{error} {anew}") from error


def _keep_news(job: CamerasJob, kept: CheckpointPlace | None) -> None:
    if kept is None:
        return
    for finished in (job.work / DATABASE_FILE, *sorted(job.work.glob(f"*{PART_ENDING}"))):
        if finished.is_file():
            keep(finished, kept)


def keep(finished: Path, place: CheckpointPlace) -> None:
    """Move a finished file to the place: a copy of the database, or a part's cameras. Failure is a warning."""
    try:
        with place.scratch() as scratch:
            place.put(Path(shutil.move(finished, scratch / finished.name)))
    except (SpaceportError, OSError) as error:
        finished.unlink(missing_ok=True)
        logger.warning("features and matches could not be kept for a later run (%s)", error)


def take(place: CheckpointPlace, target: Path) -> bool:
    """Copy the kept database to `target` if it exists and is intact, and parts beside it; remove a damaged one."""
    try:
        if DATABASE_FILE not in place.names():
            return False
        shutil.copyfile(place.get(DATABASE_FILE, target.parent), target)
        parts = target.with_name(KEPT_PARTS_FOLDER)
        parts.mkdir(exist_ok=True)
        for name in place.names():
            if name.endswith(PART_ENDING):
                shutil.copyfile(place.get(name, target.parent), parts / name)
    except (SpaceportError, OSError) as error:
        target.unlink(missing_ok=True)
        logger.warning("features kept from an earlier run could not be read (%s)", error)
        return False
    found = damage(target)
    if found is not None:
        target.unlink()
        drop(place, found)
    return found is None


def drop(place: CheckpointPlace, reason: str) -> None:
    """Remove the kept database, and log the reason."""
    logger.warning("features kept from an earlier run are not used: %s", reason)
    with suppress(SpaceportError, OSError):  # the next run checks it again
        place.remove([name for name in place.names() if name == DATABASE_FILE or name.endswith(PART_ENDING)])


def damage(database: Path) -> str | None:
    """Return the fault of a database that no process has open; None if its pages and tables are intact."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?immutable=1", uri=True)) as connection:
            [(first,)] = connection.execute("pragma quick_check(1)").fetchall()
            tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.DatabaseError as error:
        return str(error)
    if first != "ok":
        return str(first)
    missing = sorted(TABLES - tables)
    return f"it has no table {missing[0]}" if missing else None
