"""The worker that makes a scene of a user's own model: of COLMAP's files, or of cameras as NeRF programs write them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray
from plyfile import PlyData, PlyParseError

from tasks.core.errors import FormatError
from tasks.core.measurements import LeftOutPhoto, SfmSection
from tasks.core.model_frame import ModelFrame
from tasks.core.safe_names import below, printable, reason
from tasks.core.scene import IMAGES_FOLDER
from tasks.core.sfm.frame import normalise
from tasks.core.sfm.given_model import LEAST_POINTS, MIN_CAMERAS, GivenModel, read_frames, read_given
from tasks.core.sfm.image_sizes import GivenImage
from tasks.core.sfm.model_checks import check_binary_model, check_numbers
from tasks.core.sfm.scene_writer import undistort_model, write_scene
from tasks.core.sfm.triangulation import triangulate
from tasks.core.sfm.undistort import write_plan
from tasks.core.sfm.worker import PLAN_FILE, ImportJob, work

MOST_POINTS = 2_000_000  # of a .ply: more than training begins with, and a minute of reading


def import_in_worker(job: ImportJob) -> SfmSection:
    """Check the model against its images, normalise its frame, and write it as a scene."""
    given = read_given(job.source)
    model = load_model(given)
    check_numbers(model)
    unposed = sorted(printable(image.name) for image in model.images.values() if not image.has_pose)
    left_out = (
        *(LeftOutPhoto(name=name, reason="has no pose in the model") for name in unposed),
        *(LeftOutPhoto(name=name, reason="is not among the images") for name in given.missing),
    )
    notes = list(given.notes)
    model, images = keep_images(model, given)
    if len(images) < MIN_CAMERAS:
        raise FormatError(f"The model in {given.home} has {len(images)} cameras with a pose; need {MIN_CAMERAS}.")
    _require_perspective(model)
    scale_cameras(model, given)
    if (points := model.num_points3D()) < LEAST_POINTS:
        model = triangulate(model, images, job.work)
        notes.append(
            f"The model has {points or 'no'} points: {model.num_points3D():,} were triangulated from the images, with "
            "the model's cameras as they are."
        )
    error_px = model.compute_mean_reprojection_error() if model.compute_num_observations() else None
    frame = ModelFrame.of(given.label, normalise(model))
    files = {image.name: image.file for image in images}
    if _is_ready(model, given, job.image_size):
        for name, source in files.items():
            target = below(job.out / IMAGES_FOLDER, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        write_plan(job.work / PLAN_FILE, {}, {})
    else:
        write_plan(job.work / PLAN_FILE, undistort_model(model, job.image_size), files)
    scene = write_scene(model, job.out, sorted(files), None)
    frame.save(job.out)
    return SfmSection(
        registered=len(scene.cameras),
        unregistered=tuple(photo.name for photo in left_out),
        left_out=left_out,
        models=1,
        mean_reprojection_error_px=error_px,
        points=len(scene.points.xyz),
        georeferenced=False,
        model_frame=frame,
        matcher="given",
        mapper="given",
        degradations=tuple(notes),
    )


def load_model(given: GivenModel) -> pycolmap.Reconstruction:
    """Read the model's cameras, images and points. Raises FormatError when it cannot be read."""
    return read_model(given.home) if given.form == "colmap" else _of_frames(given)


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a COLMAP model, binary or text. Raises FormatError when it cannot be read."""
    check_binary_model(folder)
    try:
        return pycolmap.Reconstruction(folder)
    except (ValueError, RuntimeError, IndexError, KeyError) as error:
        raise FormatError(f"{folder} is not a complete COLMAP model: {reason(error)}.") from error


def _of_frames(given: GivenModel) -> pycolmap.Reconstruction:
    """Make a model of the cameras of a transforms.json or of Polycam, and of the points in a .ply."""
    frames = read_frames(given.home, given.form)
    sizes = dict(given.sizes)
    model = pycolmap.Reconstruction()
    for number, camera in enumerate(frames.cameras, 1):
        if number not in sizes:
            continue  # none of its images is there
        width, height = camera.width or sizes[number][0], camera.height or sizes[number][1]
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=number,
                model=camera.model,
                width=width,
                height=height,
                params=camera.parameters(width, height),
            )
        )
    for number, frame in enumerate(frames.frames, 1):
        if frame.camera + 1 in sizes:
            image = pycolmap.Image(name=str(number), camera_id=frame.camera + 1, image_id=number)
            model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(frame.cam_from_world[:3]))
    if given.points_file is not None:
        _add_points(model, given.points_file)
    return model


def _add_points(model: pycolmap.Reconstruction, file: Path) -> None:
    """Add the points of a .ply, which no image is known to show. Raises FormatError."""
    vertices = _vertices(file)
    names = set(vertices.dtype.names or ())
    if not {"x", "y", "z"} <= names or not len(vertices):
        raise FormatError(f"{file.name} contains no points with x, y and z: export it again.")
    vertices = vertices[:: -(-len(vertices) // MOST_POINTS)]
    xyz = np.stack([vertices[axis] for axis in "xyz"], axis=-1).astype(np.float64)
    rgb = np.full((len(xyz), 3), 128, np.uint8)
    if {"red", "green", "blue"} <= names:
        colors = np.stack([vertices[color] for color in ("red", "green", "blue")], axis=-1)
        is_share = np.issubdtype(colors.dtype, np.floating)
        rgb = np.clip(np.nan_to_num(colors) * (255 if is_share else 1), 0, 255).astype(np.uint8)
    for place, color in zip(xyz, rgb, strict=True):
        model.add_point3D(place, pycolmap.Track(), color)


def _vertices(file: Path) -> NDArray[Any]:
    """Return the points of a .ply with their properties by name; none if it has no points. Raises FormatError."""
    try:
        found = [element.data for element in PlyData.read(str(file)).elements if element.name == "vertex"]
    # plyfile lets some of numpy's errors about damaged numbers pass
    except (PlyParseError, KeyError, IndexError, TypeError, ValueError, OverflowError, MemoryError, OSError) as error:
        raise FormatError(f"{file.name} cannot be read as .ply: {reason(error)}.") from error
    return found[0] if found else np.zeros(0)


def keep_images(model: pycolmap.Reconstruction, given: GivenModel) -> tuple[pycolmap.Reconstruction, list[GivenImage]]:
    """Give the images that are there their names in the scene, and take all others out of the model.

    Returns:
        The model, and its images that have a pose.
    """
    posed = {int(number) for number in model.reg_image_ids()}
    images = [image for image in given.images if image.number in posed]
    kept = {image.number for image in images}
    for image in images:
        model.image(image.number).name = image.name
    frames: dict[int, list[int]] = {}
    for number in posed:
        frames.setdefault(model.image(number).frame_id, []).append(number)
    lost = {frame: numbers for frame, numbers in frames.items() if not kept.issuperset(numbers)}
    if any(kept.intersection(numbers) for numbers in lost.values()):  # a rig that lost some of its images
        return _with_images(model, kept), images
    for frame in lost:
        model.deregister_frame(frame)
    return model, images


def _with_images(model: pycolmap.Reconstruction, kept: set[int]) -> pycolmap.Reconstruction:
    """Return a model of these images alone, each on a rig of its own."""
    small = pycolmap.Reconstruction()
    for camera in model.cameras.values():
        small.add_camera_with_trivial_rig(camera)
    for number in sorted(kept):
        image = model.image(number)
        points = np.array([point.xy for point in image.points2D], dtype=np.float64).reshape(-1, 2)
        copy = pycolmap.Image(image.name, points, image.camera_id, number)
        small.add_image_with_trivial_frame(copy, image.cam_from_world())
    for _, point in sorted(model.points3D.items()):
        track = pycolmap.Track()
        for element in point.track.elements:
            if element.image_id in kept:
                track.add_element(element.image_id, element.point2D_idx)
        if track.length() >= 2 or point.track.length() == 0:
            small.add_point3D(point.xyz, track, point.color)
    return small


def _require_perspective(model: pycolmap.Reconstruction) -> None:
    for image in (model.image(i) for i in sorted(model.reg_image_ids())):
        camera = model.camera(image.camera_id)
        if not camera.is_perspective():
            raise FormatError(f"{image.name} has a {camera.model_name} camera; only perspective ones can be used.")


def scale_cameras(model: pycolmap.Reconstruction, given: GivenModel) -> None:
    """Scale the intrinsics of cameras, and the points in their images, to the size of the images."""
    factors: dict[int, tuple[float, float]] = {}
    for number, (width, height) in given.sizes.items():
        camera = model.camera(number)
        if (camera.width, camera.height) != (width, height):
            factors[number] = width / camera.width, height / camera.height
            camera.rescale(width, height)
    for image in model.images.values():
        if image.camera_id in factors:
            factor = np.array(factors[image.camera_id])
            for point in image.points2D:
                point.xy = point.xy * factor


def _is_ready(model: pycolmap.Reconstruction, given: GivenModel, image_size: int) -> bool:
    """Whether all images can be used as they are."""
    return all(
        camera.model == pycolmap.CameraModelId.PINHOLE and max(camera.width, camera.height) <= image_size
        for camera in model.cameras.values()
    ) and all(image.size == given.sizes[image.camera] for image in given.images)


if __name__ == "__main__":
    work(ImportJob, import_in_worker)
