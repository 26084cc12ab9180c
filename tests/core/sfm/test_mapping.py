"""The choice between two models."""

import numpy as np
import pycolmap
from scipy.spatial.transform import Rotation

from tasks.core.sfm.mapping import Mapped, agree


def mapped(turns: Rotation, world: Rotation) -> Mapped:
    """A model whose cameras have the given orientations, in a world turned by `world`."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24])
    )
    for i, rotation in enumerate((turns * world.inv()).as_matrix(), start=1):
        image = pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.column_stack([rotation, np.zeros(3)])))
    return Mapped("any", model, 1)


def test_models_agree_whatever_frame_they_stand_in() -> None:
    turns, world = Rotation.random(30, random_state=0), Rotation.random(random_state=1)
    small = Rotation.from_rotvec(np.random.default_rng(2).normal(0, np.radians(0.5), (30, 3)))
    assert agree(mapped(turns, Rotation.identity()), mapped(small * turns, world))


def test_wrong_global_solution_is_told_by_its_rotations() -> None:
    turns, world = Rotation.random(30, random_state=0), Rotation.random(random_state=1)
    large = Rotation.from_rotvec(np.random.default_rng(2).normal(0, np.radians(12), (30, 3)))
    assert not agree(mapped(turns, Rotation.identity()), mapped(large * turns, world))


def test_a_few_turned_cameras_do_not_matter() -> None:
    turns, world = Rotation.random(30, random_state=0), Rotation.random(random_state=1)
    few = np.zeros((30, 3))
    few[:4] = [0, 0, 2]
    assert agree(mapped(turns, Rotation.identity()), mapped(Rotation.from_rotvec(few) * turns, world))


def test_nothing_to_compare_with() -> None:
    model = mapped(Rotation.random(5, random_state=0), Rotation.identity())
    assert agree(Mapped("incremental", None, 0), model)
    assert not Mapped("incremental", None, 0).is_good(5)
    assert model.is_good(5)
    assert not model.is_good(6)
    assert not Mapped("incremental", model.model, 2).is_good(5)
