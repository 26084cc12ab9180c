"""One job from start to end: the worker finds cameras, then this process moves the pixels.

Encoding images with Pillow beside pycolmap's own image library, in one process, has ended in an abort.
"""

import shutil

from tasks.core.errors import DiskFullError, OutOfMemoryError, SfmCrashError, StageError
from tasks.core.measurements import SfmSection
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.safe_names import below
from tasks.core.scene import IMAGES_FOLDER
from tasks.core.sfm.job import KEPT_DATABASE_FILE, PLAN_FILE, Job
from tasks.core.sfm.kept_database import drop, take
from tasks.core.sfm.log import WORKER_PERCENT
from tasks.core.sfm.process import run_worker
from tasks.core.sfm.resampling import read_plan, require_whole, undistort_photos
from tasks.core.storage.workspace import CheckpointPlace


def run_job(job: Job, on_progress: ProgressCallback, kept: CheckpointPlace | None = None) -> SfmSection:
    """Write the scene that the job asks for; raises what `run_worker` raises.

    Nothing but the scene is left in its folder. Features and matches are put into `kept`, and taken from there. If the
    worker fails with kept ones, they are dropped, and the error is raised as one that a retry may cure.
    """
    job.work.mkdir(parents=True, exist_ok=True)
    try:
        section = _run_worker(job, on_progress, kept)
        plan = read_plan(job.work / PLAN_FILE)
        images = job.out / IMAGES_FOLDER
        require_whole([path for path in sorted(images.rglob("*")) if path.is_file()])  # of a given model, as they are

        def report(done: int) -> None:
            percent = WORKER_PERCENT + (100 - WORKER_PERCENT) * done / len(plan)
            on_progress(Progress(percent, 100, f"undistorted {done}/{len(plan)} images"))

        undistort_photos([(step.source, below(images, name), step.warp) for name, step in plan.items()], report)
        return section
    finally:
        shutil.rmtree(job.work, ignore_errors=True)


def _run_worker(job: Job, on_progress: ProgressCallback, kept: CheckpointPlace | None) -> SfmSection:
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
