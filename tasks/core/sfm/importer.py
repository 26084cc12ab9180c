"""The worker that makes a scene of a user's own COLMAP model.

Image names in a model were written by another program: full paths, `..`, backslashes. Files are read below the model's
folder `images` alone, because the scene is published with its images, and written under safe names.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pycolmap

from tasks.core.errors import FormatError, UnsafeNameError
from tasks.core.image_file import ImageError, open_image, reading_image
from tasks.core.measurements import SfmSection
from tasks.core.safe_names import TakenNames, below, reason, safe_name, shown
from tasks.core.scene import IMAGES_FOLDER
from tasks.core.sfm.frame import normalise
from tasks.core.sfm.import_model import find_model
from tasks.core.sfm.model_checks import check_binary_model, check_numbers
from tasks.core.sfm.scene_writer import undistort_model, write_scene
from tasks.core.sfm.undistort import write_plan
from tasks.core.sfm.worker import PLAN_FILE, ImportJob, work

NAMED_IMAGES = 5
MIN_CAMERAS = 3


def import_in_worker(job: ImportJob) -> SfmSection:
    """Check the model against its images, normalise its frame, and write it as a scene."""
    folder = find_model(job.source)
    model = read_model(folder)
    check_numbers(model)
    unregistered = tuple(sorted(image_name(image) for image in model.images.values() if not image.has_pose))
    images = job.source / IMAGES_FOLDER
    sources = name_images(model, images)
    if len(sources) < MIN_CAMERAS:
        raise FormatError(f"The model in {folder} has {len(sources)} cameras with a pose; need {MIN_CAMERAS}.")
    _require_images(model, images, sources)
    error_px = model.compute_mean_reprojection_error()
    normalise(model)
    if _is_ready(model, job.image_size):
        for name, source in sources.items():
            target = below(job.out / IMAGES_FOLDER, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        write_plan(job.work / PLAN_FILE, {}, {})
    else:
        write_plan(job.work / PLAN_FILE, undistort_model(model, job.image_size), sources)
    scene = write_scene(model, job.out, sorted(sources), None)
    return SfmSection(
        registered=len(scene.cameras),
        unregistered=unregistered,
        models=1,
        mean_reprojection_error_px=error_px if model.num_points3D() else None,
        points=len(scene.points.xyz),
        georeferenced=False,
        matcher="given",
        mapper="given",
    )


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a COLMAP model, binary or text. Raises FormatError when it cannot be read."""
    check_binary_model(folder)
    try:
        return pycolmap.Reconstruction(folder)
    except (ValueError, RuntimeError, IndexError, KeyError) as error:
        raise FormatError(f"{folder} is not a complete COLMAP model: {reason(error)}.") from error


def _require_images(model: pycolmap.Reconstruction, images: Path, sources: dict[str, Path]) -> None:
    missing = [name for name, source in sorted(sources.items()) if not source.is_file()]
    if missing:
        shown = ", ".join(missing[:NAMED_IMAGES]) + (" …" if len(missing) > NAMED_IMAGES else "")
        raise FormatError(
            f"{len(missing)} of the model's {len(sources)} images are not in {images}: {shown}. Put them there, under "
            "the names that the model gives them."
        )
    for image in (model.image(i) for i in sorted(model.reg_image_ids())):
        camera = model.camera(image.camera_id)
        if not camera.is_perspective():
            raise FormatError(f"{image.name} has a {camera.model_name} camera; only perspective ones can be used.")
        width, height = _size(sources[image.name])
        if (width, height) != (camera.width, camera.height):
            raise FormatError(
                f"{image.name} has {width}x{height} px, but the model's camera has {camera.width}x{camera.height}: "
                "give the images that the model was made from."
            )


def _size(path: Path) -> tuple[int, int]:
    """Return width and height as in COLMAP: EXIF orientation is not applied."""
    try:
        with reading_image(), open_image(path) as image:
            return image.size
    except (ImageError, OSError) as error:
        raise FormatError(f"{path.name} cannot be read as an image: {error}.") from error


def _is_ready(model: pycolmap.Reconstruction, image_size: int) -> bool:
    return all(
        camera.model == pycolmap.CameraModelId.PINHOLE and max(camera.width, camera.height) <= image_size
        for camera in model.cameras.values()
    )


def name_images(model: pycolmap.Reconstruction, images: Path) -> dict[str, Path]:
    """Rename the model's registered images to paths below a scene's `images`; return the file to read, by new name.

    A name that is a full path of a file in `images`, or leaves it and returns, becomes that file's path below
    it. Files need not exist.

    Raises:
        FormatError: a name is no text, two are the same file, or one is outside of `images`, also by a link.
    """
    home = Path(os.path.realpath(images))
    paths: set[str] = set()  # below `images`
    taken = TakenNames()
    sources: dict[str, Path] = {}
    for number in sorted(model.reg_image_ids(), key=lambda i: image_name(model.image(i))):
        image = model.image(number)
        written = image_name(image)
        path, file = _file_below(home, written)
        if path in paths:
            raise FormatError(f"The model names {shown(path)} twice: each image needs one camera. Export it again.")
        paths.add(path)
        image.name = taken.take(path)
        sources[image.name] = file
    return sources


def image_name(image: pycolmap.Image) -> str:
    """Return an image's name in the model. Raises FormatError where it is not UTF-8."""
    try:
        return str(image.name)
    except UnicodeDecodeError as error:
        raise FormatError(
            f"The name of image {image.image_id} in the model is not UTF-8 ({error.reason}): rename the photo and "
            "export the model again."
        ) from error


def _file_below(home: Path, written: str) -> tuple[str, Path]:
    """Return the path below `home`, which contains no links, and the file."""
    try:
        path = _path_below(home, written)
    except UnsafeNameError as error:
        raise FormatError(
            f"The model cannot be used: {str(error).removesuffix('.')}. Only images in {home} are read: put the photos "
            "there, and name them in the model by their paths below it."
        ) from error
    file = home / path
    if "\\" in written:  # which may be part of a file's name
        with suppress(OSError):  # too long a name
            file = home / written if (home / written).is_file() else file
    if not Path(os.path.realpath(file)).is_relative_to(home):
        raise FormatError(
            f"{shown(path)} in {home} is a link that leads out of that folder: put the photo itself there."
        )
    return path, file


def _path_below(home: Path, written: str) -> str:
    try:
        return safe_name(written)
    except UnsafeNameError:
        if "\0" in written:
            raise
        resolved = Path(os.path.realpath(home / written.replace("\\", "/")))
        if not resolved.is_relative_to(home):
            raise
        return safe_name(resolved.relative_to(home).as_posix())


if __name__ == "__main__":
    work(ImportJob, import_in_worker)
