"""Captures that used to end with wrong cameras, or with none, and the stage as a whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tasks.core.measurements import SfmSection
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.options import SfmOptions
from tests.core.sfm.conftest import Flight
from tests.core.sfm.flight import HEIGHT, WIDTH, faces, render, true_cameras
from tests.core.sfm.whole_stage import reconstruct

COUNT = 10
Change = Callable[[Image.Image, int], Image.Image]


@pytest.fixture(scope="session")
def views() -> list[Image.Image]:
    """Photos of the flight, as they were taken."""
    scene = faces()
    return [render(center, rotation, scene) for center, rotation in zip(*true_cameras(COUNT), strict=True)]


def reconstructed(views: list[Image.Image], change: Change, folder: Path) -> tuple[SfmSection, Scene]:
    (folder / "in").mkdir()
    for i, view in enumerate(views):
        change(view.copy(), i).save(folder / f"in/frame {i:03}.jpg", quality=95)
    ingest(folder / "in", folder / "photos", PhotosOptions(), ignore_progress)
    section = reconstruct(folder / "photos", folder / "scene", SfmOptions(), 320, ignore_progress)
    return section, Scene.load(folder / "scene")


def turned_deg(scene: Scene) -> NDArray[np.float64]:
    """Angles [N] between cameras and the true ones, after the one rotation that brings all of them closest."""
    numbers = [int(camera.name.removeprefix("frame ")[:3]) for camera in scene.cameras]
    truth = true_cameras(COUNT)[1][numbers]
    found = np.stack([camera.cam_from_world[:3, :3] for camera in scene.cameras])
    u, _, vt = np.linalg.svd((found.transpose(0, 2, 1) @ truth).sum(axis=0))
    aligned = found @ (u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt)
    traces = np.trace(aligned @ truth.transpose(0, 2, 1), axis1=1, axis2=2)
    return np.asarray(np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1))))


def burnt_in(view: Image.Image, i: int) -> Image.Image:
    draw, font = ImageDraw.Draw(view), ImageFont.load_default(size=20)
    draw.rectangle((0, 0, WIDTH, 36), fill=(0, 0, 0))
    draw.rectangle((0, HEIGHT - 36, WIDTH, HEIGHT), fill=(0, 0, 0))
    draw.text((10, 6), "CAM 01  AERIAL SURVEY  (c) ACME DRONES", font=font, fill=(255, 255, 255))
    draw.text((10, HEIGHT - 31), f"2024-05-01 12:00:{i:02d}  H 42.0m  D 13.0m", font=font, fill=(255, 255, 0))
    rng = np.random.default_rng(0)
    for x, y in zip(rng.integers(360, 460, 120), rng.integers(44, 150, 120), strict=True):
        draw.rectangle((x, y, x + 6, y + 6), fill=tuple(rng.integers(0, 255, 3).tolist()))
    return view


def test_a_title_and_a_clock_in_all_frames_do_not_decide(views: list[Image.Image], tmp_path: Path) -> None:
    """They agree in every pair at no motion at all, and would be trained into the splat."""
    section, scene = reconstructed(views, burnt_in, tmp_path)
    assert section.registered == COUNT
    assert turned_deg(scene).max() < 0.5  # degrees; 0.3 without the title
    [said] = section.degradations
    assert f"of each of {COUNT} photos never changes" in said
    assert scene.hidden.keys() == {camera.name for camera in scene.cameras}
    hidden = scene.hidden[scene.cameras[0].name]
    assert hidden.shape == (scene.cameras[0].height, scene.cameras[0].width)
    assert hidden[:20].mean() > 0.9
    assert hidden[120:210].mean() < 0.02
    for camera in scene.cameras:
        assert scene.hidden[camera.name] is hidden


def test_photos_without_a_title_have_no_masks(flight: Flight) -> None:
    assert (flight.section.degradations, flight.scene.hidden) == ((), {})
    assert [made.rung for made in flight.section.tries] == ["first try"]


def zoomed(view: Image.Image, i: int) -> Image.Image:
    if i % 2 == 0:
        return view
    box = (WIDTH * 3 / 16, HEIGHT * 3 / 16, WIDTH * 13 / 16, HEIGHT * 13 / 16)
    return view.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box)


def test_digital_zoom_that_exif_does_not_tell_is_found(views: list[Image.Image], tmp_path: Path) -> None:
    section, scene = reconstructed(views, zoomed, tmp_path)
    assert section.registered >= COUNT - 1
    focal_lengths = np.array([camera.fx for camera in scene.cameras])
    which = np.array([int(camera.name.removeprefix("frame ")[:3]) % 2 for camera in scene.cameras], bool)
    ratio = np.median(focal_lengths[which]) / np.median(focal_lengths[~which])
    assert ratio == pytest.approx(1.6, rel=0.05)
    assert turned_deg(scene).max() < 1.0  # degrees


def test_another_camera_whose_photos_show_nothing_in_common_is_left_out(
    views: list[Image.Image], tmp_path: Path
) -> None:
    """As the thermal photos of a drone, one beside each other photo: no error, and a sentence that names them."""
    (tmp_path / "in").mkdir()
    for i, view in enumerate(views):
        view.save(tmp_path / f"in/frame {i:03}.jpg", quality=95)
        small = np.random.default_rng(i).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 256)).save(tmp_path / f"in/heat {i:03}.jpg", quality=95)
    ingest(tmp_path / "in", tmp_path / "photos", PhotosOptions(), ignore_progress)
    section = reconstruct(tmp_path / "photos", tmp_path / "scene", SfmOptions(), 320, ignore_progress)
    assert section.registered == COUNT
    assert [made.rung for made in section.tries] == ["first try"]
    [said] = section.degradations
    assert f"None of the {COUNT} photos of a camera without a name, 320x256 px could be placed" in said
