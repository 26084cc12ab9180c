"""The reason for each photo that is not in the scene, from a database made by hand."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from tasks.core.photoset import Photo
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.left_out import reasons
from tasks.core.sfm.mapping import Mapped
from tasks.core.sfm.options import SfmOptions

# photo: its features; pairs: points in common. Photos 0 to 2 make the scene.
FEATURES = (900, 900, 900, 40, 900, 900, 900, 900)
SHARED = {(0, 1): 300, (0, 2): 200, (0, 5): 20, (2, 5): 31, (6, 7): 80, (0, 6): 9}
EXPECTED = {
    "dark.jpg": "only 40 features",
    "elsewhere.jpg": "shares no points with any other photo",
    "weak.jpg": "shares points with 2 photos of the scene, at most 31 with one",
    "apart.jpg": "shares points with 1 photos, none of which is in the scene",
    "apart too.jpg": "shares points with 1 photos, none of which is in the scene",
}


@pytest.fixture
def database(tmp_path: Path) -> FeatureDatabase:
    names = ["0.jpg", "1.jpg", "2.jpg", *EXPECTED]
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("L", (64, 48)).save(tmp_path / "images" / name)
    photos = tuple(Photo(name=name, width=64, height=48, sha256="") for name in names)
    made = FeatureDatabase(tmp_path / "work", tmp_path, photos, SfmOptions())
    made.add_cameras()
    with pycolmap.Database.open(made.path) as known:
        ids = [{image.name: image.image_id for image in known.read_all_images()}[name] for name in made.names]
        for i, count in zip(ids, FEATURES, strict=True):
            known.write_keypoints(i, np.zeros((count, 6), dtype=np.float32))
        for (a, b), count in SHARED.items():
            matches = np.tile(np.arange(count, dtype=np.uint32)[:, None], 2)
            known.write_two_view_geometry(ids[a], ids[b], pycolmap.TwoViewGeometry(inlier_matches=matches))
    return made


def test_every_photo_that_is_left_out_has_its_reason(database: FeatureDatabase) -> None:
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=1, model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24])
    )
    with pycolmap.Database.open(database.path) as known:
        ids = {image.name: image.image_id for image in known.read_all_images()}
    for name in database.names[:3]:
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=name, camera_id=1, image_id=ids[name]), pycolmap.Rigid3d()
        )
    found = reasons(database, Mapped("incremental", model, 2))
    assert found.keys() == EXPECTED.keys()
    for name, begins in EXPECTED.items():
        assert found[name].startswith(begins)


def test_where_nothing_was_placed_every_photo_has_a_reason(database: FeatureDatabase) -> None:
    assert len(reasons(database, Mapped("incremental", None, 0))) == len(FEATURES)
