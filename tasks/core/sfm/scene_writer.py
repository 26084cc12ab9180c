"""From a model and its photos to a Scene on disk: undistorted images, pinhole cameras, sparse points."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.scene import IMAGES_FOLDER, MODEL_FOLDER, Camera, Georeference, Scene, SparsePoints
from tasks.core.transforms import rigid

logger = logging.getLogger(__name__)

JPEG_QUALITY = 96
MODEL_FILES = ("cameras.bin", "images.bin", "points3D.bin")


def undistort(model: pycolmap.Reconstruction, images: Path, out: Path, work: Path, image_size: int) -> None:
    """Write `images/` and `sparse/0` below `out`: pinhole cameras with a long side of at most `image_size` pixels."""
    logger.info("phase undistorting %d", model.num_reg_images())
    distorted, undistorted = work / "distorted", work / "undistorted"
    distorted.mkdir()
    model.write(distorted)
    options = pycolmap.UndistortCameraOptions(max_image_size=image_size)
    pycolmap.undistort_images(undistorted, distorted, images, undistort_options=options, jpeg_quality=JPEG_QUALITY)
    shutil.move(undistorted / "images", out / IMAGES_FOLDER)
    write_model(pycolmap.Reconstruction(undistorted / "sparse"), out)


def write_model(model: pycolmap.Reconstruction, out: Path) -> None:
    """Write `sparse/0` with errors in pixels of the images beside it."""
    folder = out / MODEL_FOLDER
    folder.mkdir(parents=True)
    model.update_point_3d_errors()
    model.write_binary(folder)


def write_scene(out: Path, order: Sequence[str], georeference: Georeference | None) -> Scene:
    """Write `scene.json` and `points.npz` from `sparse/0`; cameras follow the given order of image names."""
    model = pycolmap.Reconstruction(out / MODEL_FOLDER)
    images = {image.name: image for image in (model.image(i) for i in model.reg_image_ids())}
    cameras = tuple(_camera(images[name], model.camera(images[name].camera_id)) for name in order if name in images)
    points = [point for _, point in sorted(model.points3D.items())]
    scene = Scene(
        folder=out,
        cameras=cameras,
        points=SparsePoints(
            xyz=np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3),
            rgb=np.array([point.color for point in points], dtype=np.uint8).reshape(-1, 3),
            errors_px=np.array([point.error for point in points], dtype=np.float64),
            track_lengths=np.array([point.track.length() for point in points], dtype=np.int32),
        ),
        up=np.array([0.0, 0.0, 1.0]),
        georeference=georeference,
    )
    scene.save()
    return scene


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
