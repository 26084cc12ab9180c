"""The worker that makes a scene of a model: pinhole cameras, sparse points, and how to undistort the photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from tasks.core.georeference import Georeference
from tasks.core.photoset import IMAGES_FOLDER, PhotoSet
from tasks.core.safe_names import below
from tasks.core.scene import MODEL_FOLDER, Camera, Observations, Scene, SparsePoints
from tasks.core.sfm.undistort import Warp, grid_nodes, write_plan
from tasks.core.sfm.worker import CAMERAS_MODEL, PLAN_FILE, SceneJob, work
from tasks.core.transforms import Float64, rigid

GRIDS = (4, 8, 16, 32, 64, 128)  # cells along the long side
GRID_ERROR_PX = 0.03  # of the undistorted image, at the middle of a cell, where it is greatest


def write_in_worker(job: SceneJob) -> None:
    """Write the scene of found cameras, and the plan for its images."""
    model = pycolmap.Reconstruction(job.cameras / CAMERAS_MODEL)
    names = [photo.name for photo in PhotoSet.load(job.source).photos]
    sources = {name: below(job.source / IMAGES_FOLDER, name) for name in names}
    write_plan(job.work / PLAN_FILE, undistort_model(model, job.image_size), sources)
    write_scene(model, job.out, names, Georeference.load(job.cameras))


def undistort_model(model: pycolmap.Reconstruction, image_size: int) -> dict[str, Warp]:
    """Make all cameras of the model pinhole ones with a long side of at most `image_size` pixels.

    Returns:
        The source positions in the photos of the undistorted images' pixels, by image name.
    """
    options = pycolmap.UndistortCameraOptions(max_image_size=image_size)
    pinholes = {number: pycolmap.undistort_camera(options, camera) for number, camera in model.cameras.items()}
    warps = {number: _warp(camera, pinholes[number]) for number, camera in model.cameras.items()}
    for image in model.images.values():
        pinhole = pinholes[image.camera_id]
        if image.num_points2D():
            rays = model.camera(image.camera_id).cam_from_img(image.points2D)  # [P, 2]
            pixels = np.asarray(pinhole.img_from_cam(_homogeneous(rays)))
            for point, xy in zip(image.points2D, pixels, strict=True):
                point.xy = xy
    for number, pinhole in pinholes.items():
        camera = model.camera(number)
        camera.model = pinhole.model
        camera.width, camera.height = pinhole.width, pinhole.height
        camera.params = pinhole.params.tolist()
    return {image.name: warps[image.camera_id] for image in (model.image(i) for i in sorted(model.reg_image_ids()))}


def write_scene(
    model: pycolmap.Reconstruction, out: Path, order: Sequence[str], georeference: Georeference | None
) -> Scene:
    """Write `sparse/0`, `scene.json` and `points.npz` of a model with pinhole cameras.

    Cameras follow the given order of image names. Errors of points are in pixels of the undistorted images.
    """
    model.update_point_3d_errors()
    (out / MODEL_FOLDER).mkdir(parents=True)
    model.write_binary(out / MODEL_FOLDER)
    images = {image.name: image for image in (model.image(i) for i in model.reg_image_ids())}
    points = [point for _, point in sorted(model.points3D.items())]
    names = [name for name in order if name in images]
    scene = Scene(
        folder=out,
        cameras=tuple(_camera(images[name], model.camera(images[name].camera_id)) for name in names),
        points=SparsePoints(
            xyz=np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3),
            rgb=np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3),
            errors_px=np.array([point.error for point in points], dtype=np.float64),
            track_lengths=np.array([point.track.length() for point in points], dtype=np.int32),
        ),
        up=np.array([0.0, 0.0, 1.0]),
        georeference=georeference,
        observations=_observations(points, [images[name].image_id for name in names]),
    )
    scene.save()
    return scene


def _observations(points: Sequence[pycolmap.Point3D], image_ids: Sequence[int]) -> Observations:
    """Return pairs of image and point in the scene's order; an image sees a point at most once."""
    place = {image_id: index for index, image_id in enumerate(image_ids)}
    lengths = [point.track.length() for point in points]
    seen_from = np.fromiter(
        (place.get(element.image_id, -1) for point in points for element in point.track.elements), np.int64
    )
    seen = np.repeat(np.arange(len(points)), lengths)
    pairs = np.unique(seen_from[seen_from >= 0] * len(points) + seen[seen_from >= 0])
    cameras, numbers = np.divmod(pairs, max(len(points), 1))
    return Observations(cameras.astype(np.int32), numbers.astype(np.int32))


def _warp(source: pycolmap.Camera, pinhole: pycolmap.Camera) -> Warp:
    """Choose the coarsest grid that is fine enough: each cell costs Pillow some microseconds for each image."""
    sizes = source.width, source.height, pinhole.width, pinhole.height
    long_side = max(pinhole.width, pinhole.height)
    for cells in GRIDS:
        cell = max(-(-long_side // cells), 2)
        columns, rows = grid_nodes(pinhole.width, pinhole.height, cell)
        sources = _sources(source, pinhole, columns, rows)
        corners = sources[:-1, :-1] + sources[1:, :-1] + sources[:-1, 1:] + sources[1:, 1:]
        middles = _sources(source, pinhole, (columns[:-1] + columns[1:]) / 2, (rows[:-1] + rows[1:]) / 2)
        error_px = np.linalg.norm(corners / 4 - middles, axis=-1).max() * long_side / max(source.width, source.height)
        if error_px <= GRID_ERROR_PX or cell == 2:
            break
    return Warp(*sizes, cell, sources)


def _sources(source: pycolmap.Camera, pinhole: pycolmap.Camera, columns: NDArray[Any], rows: NDArray[Any]) -> Float64:
    """Return the positions in the photo [R, C, 2] of these columns [C] and rows [R] of the undistorted image."""
    nodes = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float64)
    rays = np.asarray(pinhole.cam_from_img(nodes), dtype=np.float64)
    return np.asarray(source.img_from_cam(_homogeneous(rays))).reshape(len(rows), len(columns), 2)


def _homogeneous(rays: Float64) -> Float64:
    return np.column_stack([rays, np.ones(len(rays))])  # [N, 3] from [N, 2]


def _camera(image: pycolmap.Image, camera: pycolmap.Camera) -> Camera:
    pose = image.cam_from_world()
    return Camera(
        name=image.name,
        width=camera.width,
        height=camera.height,
        fx=camera.focal_length_x,
        fy=camera.focal_length_y,
        cx=camera.principal_point_x,
        cy=camera.principal_point_y,
        cam_from_world=rigid(np.asarray(pose.rotation.matrix()), np.asarray(pose.translation)),
    )


if __name__ == "__main__":
    work(SceneJob, write_in_worker)
