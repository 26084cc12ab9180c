"""Gains of photos: found where exposure changes, left alone where it does not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.ply import read_ply
from tasks.core.render.backends import rasterizer_for
from tasks.core.render.metrics import psnr
from tasks.core.scene import Scene
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import train
from tasks.core.training.views import IGNORED, MAX_LOG_GAIN, Exposures
from tests.core.training.scenes import made_scene

PIXELS = np.random.default_rng(0).uniform(0.2, 0.5, (12, 10, 3)).astype(np.float32)


def settled(photos: list[np.ndarray], renders: list[np.ndarray]) -> Exposures:
    exposures = Exposures.neutral(len(photos))
    for _ in range(60):
        for index, (photo, render) in enumerate(zip(photos, renders, strict=True)):
            exposures.update(index, (photo * 255).round().astype(np.uint8), render)
    return exposures


def test_gains_are_found_and_their_mean_is_one() -> None:
    gains = np.exp([[0.4, 0.3, 0.2], [-0.4, -0.3, -0.2]]).astype(np.float32)
    exposures = settled([PIXELS * gain for gain in gains], [PIXELS, PIXELS])
    # what is ignored is missing, nothing else; photos are bytes
    np.testing.assert_allclose(exposures.log_gains, np.sign(gains - 1) * (abs(np.log(gains)) - IGNORED), atol=0.01)
    np.testing.assert_allclose(exposures.log_gains.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(exposures.gain(0), np.exp(exposures.log_gains[0]))


def test_photos_that_join_later_move_no_other_gain() -> None:
    exposures = settled([PIXELS * np.float32(1.5), PIXELS * np.float32(0.7)], [PIXELS, PIXELS])
    before = exposures.log_gains.copy()
    joined = exposures.with_more(1)
    joined.update(2, (PIXELS * np.float32(0.6) * 255).round().astype(np.uint8), PIXELS, share=1.0)
    np.testing.assert_allclose(joined.log_gains[:2], before, atol=1e-6)
    np.testing.assert_allclose(joined.log_gains[2], np.log(0.6) + IGNORED, atol=0.01)  # at once, all the way


def test_small_differences_and_holes_are_left_to_the_scene() -> None:
    holes = PIXELS.copy()
    holes[:4] = 0  # a third of the view is not covered yet
    exposures = settled([PIXELS * 1.04, PIXELS, PIXELS], [PIXELS, PIXELS, holes])
    assert not exposures.log_gains.any()


def test_gains_are_bounded_and_a_black_render_says_nothing() -> None:
    black = np.zeros_like(PIXELS)
    assert not settled([PIXELS, PIXELS], [black, black]).log_gains.any()
    assert abs(settled([np.ones_like(PIXELS) * 0.9, PIXELS], [PIXELS * 0.1, PIXELS]).log_gains).max() <= MAX_LOG_GAIN


def with_exposures(scene: Scene, log_gains: np.ndarray) -> Scene:
    for camera, log_gain in zip(scene.cameras, log_gains, strict=True):
        path = scene.folder / "images" / camera.name
        Image.fromarray((scene.image(camera) * np.exp(log_gain)).clip(0, 255).astype(np.uint8)).save(path)
    return dataclasses.replace(scene)


def test_a_capture_with_changing_exposure_is_trained_better_with_gains(tmp_path: Path) -> None:
    """All views beside what one exposure would have shown, under one gain for all: what the splat has learnt of single
    photos' exposures shows as differences.
    """
    plain = made_scene(tmp_path / "scene")
    truth = np.stack([plain.image(camera) / np.float32(255) for camera in plain.cameras])
    # Up to 0.7 stops darker. Brighter ones would be clipped, and of so small a photo too few pixels would be left.
    scene = with_exposures(plain, np.random.default_rng(1).uniform(-0.5, 0, len(plain.cameras)))
    # Without what works against differences between photos as well
    options = TrainOptions(
        max_image_size=96, steps=250, max_gaussians=900, sh_degree=1, backend="cpu", max_dropout=0, early_stop=False
    )

    def likeness_db(*, compensated: bool, seed: int) -> float:
        chosen = options.model_copy(update={"exposure_compensation": compensated, "random_seed": seed})
        train(scene, tmp_path, chosen, lambda _: None)
        gaussians, rasterizer = read_ply(tmp_path / "scene.ply"), rasterizer_for("cpu")
        renders = np.stack([rasterizer.render(gaussians, camera).copy() for camera in scene.cameras])
        return psnr(renders * ((renders * truth).sum() / (renders**2).sum()), truth)

    better_db = [likeness_db(compensated=True, seed=s) - likeness_db(compensated=False, seed=s) for s in range(3)]
    # 0.9 dB in the mean of four pairs, with a standard deviation of 0.2 dB between seeds: the mean of three stays above
    # 0.9 - 3 * 0.2 / sqrt(3)
    assert np.mean(better_db) > 0.5


@pytest.mark.parametrize("index", [0, 1])
def test_photos_have_gains_of_their_own(index: int) -> None:
    exposures = Exposures.neutral(3)
    exposures.update(index, (PIXELS * 255 * 1.5).astype(np.uint8), PIXELS)
    assert exposures.log_gains[index].min() > 0
    assert exposures.log_gains[2].max() < 0  # the mean stays
