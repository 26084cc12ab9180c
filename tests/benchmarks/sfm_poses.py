"""Poses as each side leaves them, in one form."""

import json
from pathlib import Path

import numpy as np

from tasks.core.scene import Scene
from tests.benchmarks.pose_agreement import Poses

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])  # transforms.json: camera axes x right, y up, z backwards


def peer_poses(folder: Path) -> Poses:
    import pycolmap

    model = pycolmap.Reconstruction(folder / "best")
    images = [model.image(i) for i in model.reg_image_ids()]
    rotations = [np.asarray(image.cam_from_world().rotation.matrix()) for image in images]
    return {
        i.name: (rotation, np.asarray(i.projection_center())) for i, rotation in zip(images, rotations, strict=True)
    }


def our_poses(folder: Path) -> Poses:
    return {c.name: (c.cam_from_world[:3, :3], c.center) for c in Scene.load(folder / "scene").cameras}


def given_poses(transforms: Path) -> Poses:
    frames = json.loads(transforms.read_text(encoding="utf-8"))["frames"]
    matrices = {Path(frame["file_path"]).name: np.array(frame["transform_matrix"]) for frame in frames}
    return {name: ((m[:3, :3] @ OPENCV_FROM_OPENGL).T, m[:3, 3]) for name, m in matrices.items()}
