"""Matches that do not move decide no pair while enough others do."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from tasks.core.photoset import IMAGES_FOLDER, Photo
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.options import SfmOptions

WIDTH, HEIGHT, COUNT = 640, 480, 4
MOVING = 60  # matches of the place in each pair


def database(folder: Path, still: int, step_px: float) -> FeatureDatabase:
    """Photos that each move by a step along a wall, and show `still` points at the same place."""
    rng = np.random.default_rng(0)
    (folder / IMAGES_FOLDER).mkdir()
    photos = tuple(Photo(name=f"{i}.png", width=WIDTH, height=HEIGHT, sha256="") for i in range(COUNT))
    for photo in photos:
        Image.new("L", (WIDTH, HEIGHT)).save(folder / IMAGES_FOLDER / photo.name)
    made = FeatureDatabase(folder / "work", folder, photos, SfmOptions())
    made.add_cameras()
    wall, fixed = rng.uniform(100, 380, (MOVING, 2)), rng.uniform(0, 60, (still, 2))
    matches = np.tile(np.arange(MOVING + still, dtype=np.uint32)[:, None], 2)
    agreeing = matches[MOVING:] if still else matches
    with pycolmap.Database.open(made.path) as known:
        ids = [image.image_id for image in known.read_all_images()]
        for i, number in enumerate(ids):
            places = np.concatenate([wall + np.array([step_px * i, 0]), fixed])
            shapes = np.tile([2.0, 0, 0, 2], (len(places), 1))
            known.write_keypoints(number, np.concatenate([places, shapes], axis=1).astype(np.float32))
        for a, b in combinations(ids, 2):
            known.write_matches(a, b, matches)
            known.write_two_view_geometry(a, b, pycolmap.TwoViewGeometry(inlier_matches=agreeing))
    return made


def test_pairs_that_agree_by_a_title_are_told_and_mended(tmp_path: Path) -> None:
    made = database(tmp_path, still=150, step_px=40)
    assert made.is_fooled()
    made.leave_out_still_points()
    assert not made.is_fooled()
    with pycolmap.Database.open(made.path) as known:
        numbers, geometries = known.read_two_view_geometries()
    assert len(numbers) == COUNT * (COUNT - 1) // 2
    for geometry in geometries:
        assert len(geometry.inlier_matches) == MOVING
        assert np.asarray(geometry.inlier_matches).max() < MOVING


@pytest.mark.parametrize(("still", "step_px"), [(0, 40), (0, 0), (150, 0)])
def test_photos_of_a_place_and_a_camera_that_stands_are_not_fooled(still: int, step_px: float, tmp_path: Path) -> None:
    assert not database(tmp_path, still, step_px).is_fooled()
