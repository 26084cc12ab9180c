"""Depths of sparse points: what a photo's targets are, the loss and its derivative, and what training makes of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tasks.core.gaussians import Gaussians
from tasks.core.ply import read_ply
from tasks.core.render.reference import ReferenceRasterizer
from tasks.core.scene import Camera, Observations, Scene
from tasks.core.training import depth as module
from tasks.core.training.depth import DepthTargets, SparseDepths, colored_by_depth, depth_loss
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import train
from tasks.core.training.views import View
from tasks.core.transforms import Float64
from tests.core.render.scenes import random_gaussians
from tests.core.training.scenes import made_scene
from tests.core.training.test_seen import looking_down, plane, points_at


def view_of(camera: Camera) -> View:
    cameras = [camera]
    for _ in range(3):
        cameras.append(cameras[-1].resized(cameras[-1].width // 2, cameras[-1].height // 2))
    return View(tuple(cameras), tuple(np.zeros((c.height, c.width, 3), np.uint8) for c in cameras))


def seen(xyz: Float64, observed: dict[int, list[int]], cameras: Sequence[Camera], least: int = 3) -> Scene:
    """A scene in which each camera, by its index, has observed some points, by theirs."""
    points = points_at(xyz)
    points = dataclasses.replace(points, track_lengths=np.full(len(xyz), least, np.int32))
    pairs = np.array([(camera, point) for camera, seen in observed.items() for point in seen], np.int32).reshape(-1, 2)
    observations = Observations(*pairs.T)
    return Scene(Path(), tuple(cameras), points, np.array([0.0, 0.0, 1.0]), observations=observations)


def test_targets_are_the_points_that_were_observed_in_a_photo() -> None:
    cameras = [looking_down(0.0), looking_down(1.0)]
    xyz = np.concatenate([plane(left=-6.0, right=6.0), plane(z=6.0, left=-6.0, right=6.0), [[np.nan, 0, 0]]])
    # The second photo has seen the upper plane, in the order in which they came to be known, and what is not finite
    high, low = list(range(len(xyz) // 2, len(xyz)))[::-1], list(range(len(xyz) // 2))
    depths = SparseDepths(seen(xyz, {1: high, 0: low}, cameras), [view_of(camera) for camera in reversed(cameras)])
    upper, lower = depths.of(0, 0), depths.of(1, 0)
    assert upper is not None
    assert lower is not None
    assert (upper.camera.width, upper.camera.height) == (64, 48)  # half the photo
    assert set(upper.depths.round(4)) == {4.0}
    assert set(lower.depths.round(4)) == {10.0}
    # 10 m below, 0.1 m is a pixel of the photo: points are 4 apart, from the middle of the image on
    assert set(np.diff(np.unique(lower.columns))) == {2}
    assert {lower.columns.min(), lower.columns.max()} == {2, 60}
    inside = np.abs(xyz[high[1:], 0] - 1.0) < 2.56
    assert len(upper.depths) == (inside & (np.abs(xyz[high[1:], 1]) < 1.92)).sum()
    coarse = depths.of(1, 3)
    assert coarse is not None
    assert (coarse.camera.width, coarse.columns.max()) == (16, 15)


def test_points_that_two_photos_show_and_photos_with_few_points_tell_nothing() -> None:
    xyz, views = plane(left=-2.0, right=2.0), [view_of(looking_down(0.0))]
    everything = {0: list(range(len(xyz)))}
    assert SparseDepths(seen(xyz, everything, [looking_down(0.0)]), views).of(0, 0) is not None
    weak = SparseDepths(seen(xyz, everything, [looking_down(0.0)], least=2), views)
    assert weak.of(0, 0) is None
    assert not weak.known
    few = SparseDepths(seen(xyz, {0: [0, 1, 2]}, [looking_down(0.0)]), views)
    assert few.of(0, 0) is None
    assert few.known
    nothing = SparseDepths(seen(xyz, {}, [looking_down(0.0)]), views)
    assert nothing.of(0, 0) is None
    assert not nothing.known


def test_a_single_opaque_plane_has_its_own_depth() -> None:
    xyz = plane(left=-8.0, right=8.0)
    flat = Gaussians(
        means=xyz.astype(np.float32),
        quats=np.tile(np.float32([1, 0, 0, 0]), (len(xyz), 1)),
        log_scales=np.log(np.tile(np.float32([0.4, 0.4, 0.001]), (len(xyz), 1))),
        raw_opacities=np.full(len(xyz), 5, np.float32),
        sh0=np.zeros((len(xyz), 1, 3), np.float32),
        shN=np.zeros((len(xyz), 3, 3), np.float32),
    )
    camera = looking_down(0.0)
    rows, columns = np.arange(20, 40), np.arange(30, 50)
    right = DepthTargets(camera, rows, columns, np.full(20, 10, np.float32))
    image = ReferenceRasterizer().render(colored_by_depth(flat, right)[0], camera, 0)
    assert depth_loss(image, right, 1.0)[0] < 1e-6
    # A tenth further away than wanted: 1 / 1.1 of the inverse depth, less half of the error below which it is a square
    nearer = dataclasses.replace(right, depths=np.full(20, 10 / 1.1, np.float32))
    image = ReferenceRasterizer().render(colored_by_depth(flat, nearer)[0], camera, 0)
    assert depth_loss(image, nearer, 2.0)[0] == pytest.approx(2 * (0.1 / 1.1 - module.SMALL_ERROR / 2), rel=1e-3)


def test_the_derivative_is_that_of_the_loss() -> None:
    gaussians, camera = random_gaussians(100, 24, 18, 2.0)
    rng = np.random.default_rng(5)
    targets = DepthTargets(
        camera, rng.integers(0, 18, 30), rng.integers(0, 24, 30), rng.uniform(1, 6, 30).astype(np.float32)
    )
    image = ReferenceRasterizer().render(colored_by_depth(gaussians, targets)[0], camera, 0).astype(np.float64)
    _, derivative = depth_loss(image, targets, 3.0)
    covered = image[targets.rows, targets.columns, 1]
    assert (covered > module.LEAST_COVERAGE).any()
    assert (np.abs(covered - module.LEAST_COVERAGE) > 1e-3).all(), "no pixel may change sides"
    direction = rng.normal(size=image.shape)
    step = 1e-6
    ahead, behind = (depth_loss(image + sign * step * direction, targets, 3.0)[0] for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float((derivative * direction).sum()), rel=1e-4)


def everywhere(scene: Scene, xyz: Float64) -> Scene:
    """The same cameras with these points, each of which all photos have observed."""
    cameras = np.repeat(np.arange(len(scene.cameras)), len(xyz)).astype(np.int32)
    observations = Observations(cameras, np.tile(np.arange(len(xyz), dtype=np.int32), len(scene.cameras)))
    return dataclasses.replace(scene, points=points_at(xyz), observations=observations)


def depth_error(scene: Scene, gaussians: Gaussians) -> float:
    """Median error of the render's depth at the scene's points, as a share of it, over all photos."""
    depths = SparseDepths(scene, [view_of(camera) for camera in scene.cameras])
    errors = []
    for index in range(len(scene.cameras)):
        targets = depths.of(index, 0)
        assert targets is not None
        image = ReferenceRasterizer().render(colored_by_depth(gaussians, targets)[0], targets.camera, 0)
        drawn, covered = image[targets.rows, targets.columns, 0], image[targets.rows, targets.columns, 1]
        errors.append(np.abs(covered / np.maximum(drawn, 1e-6) * targets.unit / targets.depths - 1)[covered > 0.3])
    return float(np.median(np.concatenate(errors)))


def test_training_with_depths_puts_gaussians_onto_the_surface(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene", cameras=8)
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 30)))
    truth = np.column_stack([x, y, 0.25 * np.sin(3 * x) * np.cos(2 * y)])
    told = everywhere(scene, truth[::6])
    found = {}
    for weight in (0.0, 1.0):
        out = tmp_path / f"{weight:g}"
        out.mkdir()
        options = TrainOptions(steps=200, max_gaussians=2000, max_image_size=96, depth_weight=weight, backend="cpu")
        train(told, out, options, lambda stats: None)
        found[weight] = depth_error(everywhere(scene, truth), read_ply(out / "scene.ply"))
    assert found[1.0] < 0.5 * found[0.0], "0.35 on AVX-512 with two seeds"
