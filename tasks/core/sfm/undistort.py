"""Second half of the sfm stage: cameras and photos become a scene with undistorted images.

The worker says where pixels come from, then this process moves them: encoding images with Pillow beside pycolmap's own
image library, in one process, has ended in an abort.
"""

import shutil
from pathlib import Path

from tasks.core.measurements import SfmSection
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.safe_names import below
from tasks.core.scene import IMAGES_FOLDER
from tasks.core.sfm.job import PLAN_FILE, Job, SceneJob
from tasks.core.sfm.log import WORKER_PERCENT
from tasks.core.sfm.process import run_worker
from tasks.core.sfm.resampling import read_plan, require_whole, undistort_photos


def undistort_scene(cameras: Path, photos: Path, out: Path, image_size: int, on_progress: ProgressCallback) -> None:
    """Write a Scene folder.

    Args:
        cameras: what `find_cameras` wrote.
        photos: the photo set that it found them in.
        out: an empty or missing folder; receives the scene (tasks.core.scene) and `sfm.log`.
        image_size: long side of the undistorted images, at most (px).
        on_progress: told percent of the whole stage, from WORKER_PERCENT on.

    Raises what `run_worker` raises, and FormatError for a photo that is damaged.
    """
    make_scene(
        SceneJob(source=photos.resolve(), cameras=cameras.resolve(), out=out.resolve(), image_size=image_size),
        on_progress,
    )


def make_scene(job: Job, on_progress: ProgressCallback) -> SfmSection | None:
    """Write the scene that the job asks for, with its images, and nothing else; raises what `undistort_scene` raises.

    Returns what the worker measured.
    """
    job.work.mkdir(parents=True, exist_ok=True)
    try:
        section = run_worker(job, on_progress)
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
