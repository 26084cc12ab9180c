"""The page's first view: which camera, level, and what it orbits about."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.viewer.page import MIN_TILT_DEG, start_view
from tests.core.viewer.scenes import Z_UP, looking, orbit, scene_of


def test_the_camera_in_the_middle_that_looks_at_the_subject_is_chosen(tmp_path: Path) -> None:
    row = tuple(looking((x, -9, 6), (x, 0, 0), f"{x}.jpg") for x in (-8, -4, 0, 4, 8))
    away = looking((0, -9, 6), (0, -20, 6), "away.jpg")
    assert start_view(scene_of(tmp_path, (away, *row)), "a").camera.name == "0.jpg"


def test_the_view_orbits_about_the_subject_and_looks_at_it(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, orbit(8))
    view = start_view(scene, "a", "3 May 2024")
    np.testing.assert_allclose(view.target, np.median(scene.points.xyz, axis=0))
    towards = view.target - view.camera.center
    np.testing.assert_allclose(view.camera.forward, towards / np.linalg.norm(towards), atol=1e-9)
    camera = next(c for c in scene.cameras if c.name == view.camera.name)
    np.testing.assert_allclose(view.camera.center, camera.center, atol=1e-9)
    assert view.date == "3 May 2024"


def test_where_nobody_looks_at_the_middle_the_target_is_what_was_looked_at(tmp_path: Path) -> None:
    aside = looking((0, -9, 4), (9, 0, 0))
    scene = scene_of(tmp_path, (aside,))
    view = start_view(scene, "a")
    np.testing.assert_allclose(view.camera.forward, aside.forward, atol=1e-9)
    in_camera = scene.points.xyz @ aside.cam_from_world[:3, :3].T + aside.cam_from_world[:3, 3]
    pixels = in_camera[:, :2] / in_camera[:, 2:] * aside.fx + [aside.cx, aside.cy]
    inside = (in_camera[:, 2] > 0) & ((pixels >= 0) & (pixels < [aside.width, aside.height])).all(axis=1)
    assert 0 < inside.sum() < len(inside)
    depth = np.linalg.norm(view.target - aside.center)
    assert depth == pytest.approx(np.median(in_camera[inside, 2]), abs=1e-9)


def test_only_cameras_on_all_sides_make_a_full_circle(tmp_path: Path) -> None:
    assert start_view(scene_of(tmp_path, orbit(8)), "a").around
    assert not start_view(scene_of(tmp_path, orbit(8)[:6]), "a").around
    assert not start_view(scene_of(tmp_path, orbit(4)), "a").around


def test_a_rolled_camera_becomes_level_and_stays_where_it_is(tmp_path: Path) -> None:
    rolled = looking((1, -9, 5), (0, 0, 0), image_up=np.array([0.6, 0, 0.8]))
    view = start_view(scene_of(tmp_path, (rolled,)), "a")
    np.testing.assert_allclose(view.camera.center, rolled.center, atol=1e-9)
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
