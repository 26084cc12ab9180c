"""Photos of a generated town: the same bytes for the same options, and something to match in each of them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.demo import place
from tasks.core.demo.camera_film import Exposure, expose
from tasks.core.demo.flight import fly, ground_truth_path, load_ground_truth
from tasks.core.demo.flight_plan import DemoOptions, plan
from tasks.core.demo.rays import FAR, GROUND
from tasks.core.demo.scenery import MAP_STEP, PAVED, WATER, World
from tasks.core.demo.town_plan import Use, plan_town
from tasks.core.demo.world import build_world
from tasks.core.progress import ignore_progress
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid_inverse

OPTIONS = DemoOptions(photos=24, extent_m=120, width=240, height=180)


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]


def hits(camera: Camera, exposure: Exposure) -> Float64:
    """Places [height, width, 3] that the pixels show."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5 - camera.cx, np.arange(camera.height) + 0.5 - camera.cy)
    rays = np.stack([u / camera.fx, v / camera.fy, np.ones_like(u)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return rays @ rigid_inverse(camera.cam_from_world)[:3, :3].T * exposure.distance_m[..., None] + camera.center


def channel(world: World, points: Float64, number: int) -> Float64:
    index = np.rint(points[..., :2] / MAP_STEP + (len(world.ground) - 1) / 2).astype(int)
    assert index.min() >= 0, "the photo shows land beyond the map"
    assert index.max() < len(world.ground), "the photo shows land beyond the map"
    return np.asarray(world.ground[index[..., 1], index[..., 0], number])


def test_the_same_bytes_again_and_every_photo_shows_texture(tmp_path: Path) -> None:
    for name in ("one", "two"):
        fly(tmp_path / name, OPTIONS, ignore_progress)
        build_world.cache_clear()
        plan_town.cache_clear()
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 24
    world = build_world(OPTIONS.extent_m, OPTIONS.seed)
    for camera in load_ground_truth(ground_truth_path(tmp_path / "one")):
        exposure = expose(world, camera)
        assert exposure.distance_m.max() < FAR  # no sky
        water = (channel(world, hits(camera, exposure), WATER) > 0) & (exposure.objects == GROUND)
        assert water.mean() < 0.5
        with Image.open(tmp_path / "one" / camera.name) as photo:
            grey = np.asarray(photo.convert("L"), np.float64)
        tiles = grey.reshape(6, 30, 8, 30).std(axis=(1, 3))
        assert (tiles > 5).mean() > 0.7  # of 255; even grass has 8 at this height


@pytest.mark.parametrize("options", [OPTIONS, DemoOptions(photos=100, extent_m=364, width=240, height=180)])
def test_no_photo_looks_beyond_the_land(options: DemoOptions) -> None:
    world = build_world(options.extent_m, options.seed)
    cameras, _ = plan(options)
    for camera in (cameras[0], cameras[len(cameras) // 2], *cameras[-30::5]):
        channel(world, hits(camera, expose(world, camera)), PAVED)  # which asserts it


def test_a_town_has_streets_houses_of_few_types_fields_trees_and_a_river() -> None:
    town, world = plan_town(300, 0), build_world(300, 0)
    assert {Use.HOUSES, Use.CHURCH, Use.PARK, Use.FIELD, Use.WOOD} <= {Use(int(use)) for use in town.uses.ravel()}
    middle = slice(400, 1000)  # samples of the extent
    assert 0.04 < (world.ground[middle, middle, PAVED] < 0).mean() < 0.25
    assert 0.01 < (world.ground[middle, middle, WATER] > 0).mean() < 0.15
    roofs = world.shapes[(world.kinds == place.GABLE) & (np.abs(world.shapes[:, :2]) < 150).all(axis=1)]
    sizes, counts = np.unique(roofs[:, 5:8].round(3), axis=0, return_counts=True)
    assert len(roofs) > 50
    assert len(sizes) < 10
    assert counts.max() > 10  # repeated
    assert (world.kinds == place.CROWN).sum() > 1000
