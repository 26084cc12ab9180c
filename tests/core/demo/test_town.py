"""Photos of a generated town: the same bytes for the same options, and something to match in each of them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.demo import place
from tasks.core.demo.camera_film import Exposure, expose
from tasks.core.demo.flight import fly, ground_truth_path, load_ground_truth
from tasks.core.demo.flight_plan import DemoOptions, look_at, plan
from tasks.core.demo.heights import heights_path, load_heights, save_heights, surface_heights
from tasks.core.demo.rays import FAR, GROUND
from tasks.core.demo.scenery import MAP_STEP, PAVED, WATER, World
from tasks.core.demo.town_plan import Use, plan_town
from tasks.core.demo.world import build_world
from tasks.core.errors import FormatError
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
    for beside in (ground_truth_path, heights_path):
        assert beside(tmp_path / "one").read_bytes() == beside(tmp_path / "two").read_bytes()
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


@pytest.mark.parametrize("extent_m", [0, 100])
def test_the_raster_of_heights_is_the_surface_that_photos_show(extent_m: int, tmp_path: Path) -> None:
    world = build_world(extent_m)
    view = look_at(np.array([5.0, 4.0, 60.0]), np.array([5.0, 4.0, 0.0]), 9.0)
    camera = Camera("", 200, 150, 150.0, 150.0, 100.0, 75.0, view)
    save_heights(tmp_path / "heights.npz", surface_heights(world, 100.0))
    raster = load_heights(tmp_path / "heights.npz")
    assert (raster.heights_m.shape, raster.origin_m, raster.step_m) == ((201, 201), (-50.0, -50.0), 0.5)
    exposure = expose(world, camera)
    points = hits(camera, exposure)
    off = np.abs(raster.at(points[..., 0], points[..., 1]) - points[..., 2])
    is_ground = exposure.objects == GROUND
    # The map of the ground is linear between the raster's samples; the rest are walls and leaves above.
    assert np.median(off[is_ground]) < 0.01  # metres
    assert np.mean(off[is_ground] < 0.05) > 0.85
    is_roof = (world.kinds == place.GABLE)[exposure.objects] & ~is_ground
    assert is_roof.sum() > 100
    assert np.median(off[is_roof]) < 0.05  # 3 cm sideways on a slope of 40°
    assert np.isnan(raster.at(np.array([51.0]), np.array([0.0]))).all()


def test_a_file_that_holds_no_heights_is_named(tmp_path: Path) -> None:
    (tmp_path / "a_heights.npz").write_bytes(b"PK no archive")
    with pytest.raises(FormatError, match=r"a_heights.npz does not hold the heights of a demo flight"):
        load_heights(tmp_path / "a_heights.npz")


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
