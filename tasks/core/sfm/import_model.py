"""A user's own COLMAP model in place of found cameras: it becomes the same Scene folder."""

from pathlib import Path

from tasks.core.errors import FormatError, InputError
from tasks.core.measurements import SfmSection
from tasks.core.progress import ProgressCallback
from tasks.core.scene import IMAGES_FOLDER
from tasks.core.sfm.undistort import make_scene
from tasks.core.sfm.worker import ImportJob

MODEL_FOLDERS = ("sparse/0", "sparse", ".")
MODEL_PARTS = ("cameras", "images", "points3D")
OPTIONAL_PARTS = ("rigs", "frames")
SUFFIXES = (".bin", ".txt")


def is_colmap_model(folder: Path) -> bool:
    """Return whether a folder contains a COLMAP model (.bin or .txt, in sparse/0, sparse or the folder itself).

    Also True for an incomplete model, or one that is half binary and half text: treated as photos, it would be ignored
    without a message.
    """
    return any(
        all(any((folder / place / f"{part}{suffix}").is_file() for suffix in SUFFIXES) for part in MODEL_PARTS[:2])
        for place in MODEL_FOLDERS
    )


def find_model(folder: Path) -> Path:
    """Return the folder that contains the model's files.

    Raises:
        FormatError: there is none, or one of its three files is missing.
    """
    for place in MODEL_FOLDERS:
        if _is_complete(folder / place):
            return folder / place
    raise FormatError(
        f"{folder} holds no complete COLMAP model: sparse/0 needs cameras, images and points3D, all .bin or all .txt."
    )


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model and everything in `images`: all that an import reads.

    Raises FormatError as `find_model`.
    """
    home = find_model(folder)
    parts = (home / f"{part}{suffix}" for part in (*MODEL_PARTS, *OPTIONAL_PARTS) for suffix in SUFFIXES)
    return [path for path in (*parts, *(folder / IMAGES_FOLDER).rglob("*")) if path.is_file()]


def import_model(folder: Path, out: Path, image_size: int, on_progress: ProgressCallback) -> SfmSection:
    """Write a Scene folder from a COLMAP model and its images.

    Images are undistorted and scaled where the cameras are not pinhole or larger than `image_size`, else copied. The
    frame is normalised (z up, cameras about the origin, their median distance 1).

    Args:
        folder: holds `sparse/0` (or `sparse`) and `images`.
        out: an empty or missing folder.
        image_size: long side of the images, at most (px).
        on_progress: receives percent done.

    Raises:
        InputError: there is no folder `images`.
        FormatError: the model is incomplete, or does not fit its images.
        StageError: the worker process failed; see `run_worker`.
    """
    find_model(folder)
    if not (folder / IMAGES_FOLDER).is_dir():
        raise InputError(f"{folder} has no folder 'images': put the photos that the COLMAP model was made from there.")
    job = ImportJob(source=folder.resolve(), out=out.resolve(), image_size=image_size)
    section = make_scene(job, on_progress)
    assert section is not None
    return section


def _is_complete(folder: Path) -> bool:
    return any(all((folder / f"{part}{suffix}").is_file() for part in MODEL_PARTS) for suffix in SUFFIXES)
