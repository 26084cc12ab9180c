"""A user's own model in place of found cameras: it becomes the same Scene folder."""

from pathlib import Path

from tasks.core.measurements import SfmSection
from tasks.core.progress import ProgressCallback
from tasks.core.sfm.undistort import make_scene
from tasks.core.sfm.worker import ImportJob


def import_model(place: Path, out: Path, image_size: int, on_progress: ProgressCallback) -> SfmSection:
    """Write a Scene folder from a user's own model and its images.

    Images are undistorted and scaled where the cameras are not pinhole or larger than `image_size`, else copied. The
    frame is normalised (z up, cameras about the origin, their median distance 1); `model_frame.json` contains the way
    back. Points are triangulated from the photos where the model has none.

    Args:
        place: folder of the model in one of the shapes that `tasks.core.sfm.given_places` knows, or a transforms.json.
        out: an empty or missing folder.
        image_size: long side of the images, at most (px).
        on_progress: receives percent done.

    Raises:
        InputError: there are no images.
        FormatError: the model is incomplete, or does not fit its images.
        StageError: the worker process failed; see `run_worker`.
    """
    job = ImportJob(source=place.resolve(), out=out.resolve(), image_size=image_size)
    section = make_scene(job, on_progress)
    assert section is not None
    return section
