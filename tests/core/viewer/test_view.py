"""The page's first view: which camera, level, and what it orbits about."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.viewer.view import MIN_TILT_DEG, start_view
from tests.core.viewer.scenes import Z_UP, looking, orbit, scene_of


def test_the_camera_in_the_middle_that_looks_at_the_subject_is_chosen(tmp_path: Path) -> None:
    row = tuple(looking((x, -9, 6), (x, 0, 0), f"{x}.jpg") for x in (-8, -4, 0, 4, 8))
    away = looking((0, -9, 6), (0, -20, 6), "away.jpg")
    assert start_view(scene_of(tmp_path, (away, *row)), "a").camera.name == "0.jpg"


def test_the_target_lies_on_the_axis_at_the_median_depth(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, orbit(8))
    view = start_view(scene, "a")
    camera = next(c for c in scene.cameras if c.name == view.camera.name)
    offset = view.target - camera.center
    depth = float(offset @ camera.forward)
    np.testing.assert_allclose(offset, depth * camera.forward, atol=1e-9)
    in_camera = scene.points.xyz @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    pixels = in_camera[:, :2] / in_camera[:, 2:] * camera.fx + [camera.cx, camera.cy]
    inside = (in_camera[:, 2] > 0) & ((pixels >= 0) & (pixels < [camera.width, camera.height])).all(axis=1)
    assert 0 < inside.sum() < len(inside)
    assert depth == pytest.approx(np.median(in_camera[inside, 2]), abs=1e-9)


def test_a_rolled_camera_becomes_level_and_stays_where_it_is(tmp_path: Path) -> None:
    rolled = looking((1, -9, 5), (0, 0, 0), image_up=np.array([0.6, 0, 0.8]))
    view = start_view(scene_of(tmp_path, (rolled,)), "a")
    np.testing.assert_allclose(view.camera.center, rolled.center, atol=1e-9)
    np.testing.assert_allclose(view.camera.forward, rolled.forward, atol=1e-9)
    assert abs(view.camera.cam_from_world[0, :3] @ Z_UP) < 1e-9  # the image's x axis is horizontal
    assert view.camera.up @ Z_UP > 0
    assert np.linalg.det(view.camera.cam_from_world) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("heading", [(1.0, 0.0, 0.0), (0.0, -1.0, 0.0)])
def test_a_nadir_photo_is_tilted_and_keeps_its_heading(tmp_path: Path, heading: tuple[float, float, float]) -> None:
    nadir = looking((0, 0, 12), (0, 0, 0), image_up=np.array(heading))
    view = start_view(scene_of(tmp_path, (nadir,)), "a")
    tilt_deg = np.degrees(np.arccos(-view.camera.forward @ Z_UP))
    assert tilt_deg == pytest.approx(MIN_TILT_DEG, abs=1e-6)
    horizontal = view.camera.forward * [1, 1, 0]
    np.testing.assert_allclose(horizontal / np.linalg.norm(horizontal), heading, atol=1e-9)
    assert np.linalg.norm(view.target - view.camera.center) == pytest.approx(
        np.linalg.norm(view.target - nadir.center), abs=1e-9
    )
