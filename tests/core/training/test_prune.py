"""The final prune removes the Gaussians that contribute least, as many as the bound allows."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tasks.core.gaussians import Gaussians
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import Camera, Scene
from tasks.core.training.evaluate import contributions, evaluate, rows_worth_keeping
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import train
from tasks.core.training.views import View
from tests.core.render.scenes import random_gaussians

CPU, REFERENCE = rasterizer_for("cpu"), rasterizer_for("reference")


def test_contributions_are_what_each_gaussian_adds_to_a_white_picture() -> None:
    """Against the specification: the picture of one Gaussian in white among others in black, summed up."""
    gaussians, camera = random_gaussians(12, 24, 24, 3.0, sh_degree=1)
    view = View((camera,), (np.zeros((24, 24, 3), np.uint8),))
    ours = contributions(gaussians, [view, view], CPU)
    black = np.full_like(gaussians.sh0, -0.5 / 0.28209479177387814)
    for i in range(12):
        colors = black.copy()
        colors[i] = -black[i]
        one = dataclasses.replace(gaussians, sh0=colors, shN=np.zeros_like(gaussians.shN))
        expected = 2 * REFERENCE.render(one, camera)[:, :, 0].sum()
        assert ours[i] == pytest.approx(expected, rel=1e-3, abs=1e-3), i  # px; float32 against float64


def test_what_is_behind_a_wall_goes_and_what_is_seen_stays() -> None:
    gaussians, camera = random_gaussians(400, 48, 48, 4.0, sh_degree=0)
    view = View((camera,), ((CPU.render(gaussians, camera).clip(0, 1) * 255).astype(np.uint8),))
    share = contributions(gaussians, [view], CPU)
    kept = gaussians.take(rows_worth_keeping(gaussians, [view], CPU, 0.05))
    assert 0 < len(kept) < len(gaussians)
    kept_rows = {row.tobytes() for row in kept.means}
    gone = np.array([row.tobytes() not in kept_rows for row in gaussians.means])
    assert share[gone].max() <= share[~gone].min()
    before, after = (evaluate(g, [view], CPU).mean_psnr_db for g in (gaussians, kept))
    assert after >= before - 0.05
    assert len(rows_worth_keeping(gaussians, [view], CPU, 3.0)) < len(kept)


def test_gaussians_that_no_chosen_photo_shows_stay() -> None:
    """Of 90 photos, a quarter show another place, and loss is measured on none of these."""
    gaussians, camera = random_gaussians(200, 48, 48, 4.0, sh_degree=0)
    away = np.diag([1.0, -1.0, -1.0, 1.0])  # half a turn around the axis to the right: it looks the other way
    turned = dataclasses.replace(camera, cam_from_world=away @ camera.cam_from_world)
    rotation, translation = camera.cam_from_world[:3, :3], camera.cam_from_world[:3, 3]
    there = (gaussians.means.astype(np.float64) @ rotation.T + translation) @ away[:3, :3]
    other = dataclasses.replace(gaussians, means=((there - translation) @ rotation).astype(np.float32))
    both = Gaussians(**{name: np.concatenate([array, getattr(other, name)]) for name, array in vars(gaussians).items()})

    def view_of(eye: Camera) -> View:
        cameras = eye, eye.resized(24, 24)
        photos = [(CPU.render(both, each).clip(0, 1) * 255).astype(np.uint8) for each in cameras]
        return View(cameras, tuple(photos))

    one, another = view_of(camera), view_of(turned)
    judged = {round(number) for number in np.linspace(0, 89, 12)}
    views = [another if number % 3 == 1 and number not in judged else one for number in range(90)]
    kept = rows_worth_keeping(both, views, CPU, 0.05)
    ours, theirs = (kept < 200).sum(), (kept >= 200).sum()
    assert theirs > ours / 2  # their photos are fewer, so somewhat more of them count as contributing least


def test_nothing_goes_without_leave_or_views() -> None:
    gaussians, camera = random_gaussians(30, 24, 24, 3.0)
    view = View((camera,), (np.zeros((24, 24, 3), np.uint8),))
    assert len(rows_worth_keeping(gaussians, [view], CPU, 0.0)) == 30
    assert len(rows_worth_keeping(gaussians, [], CPU, 0.1)) == 30
    assert len(rows_worth_keeping(gaussians.take(np.zeros(0, np.int64)), [view], CPU, 0.1)) == 0


def test_training_ends_with_a_smaller_file_and_the_same_picture(scene: Scene, tmp_path: Path) -> None:
    options = TrainOptions(max_image_size=96, steps=200, max_gaussians=900, sh_degree=0, backend="cpu")
    shares, losses_db = [], []
    for seed in range(3):
        chosen = options.model_copy(update={"random_seed": seed})
        smaller = train(scene, tmp_path, chosen, lambda _: None)
        whole = train(scene, tmp_path, chosen.model_copy(update={"max_prune_loss_db": 0.0}), lambda _: None)
        assert smaller.psnr_db is not None
        assert whole.psnr_db is not None
        shares.append(smaller.num_gaussians / whole.num_gaussians)
        losses_db.append(whole.psnr_db - smaller.psnr_db)
    # In thirteen pairs, on three kinds of processors, 88 % stayed (standard deviation 3 %): the mean of three is
    # less than 88 + 3 * 3 / sqrt(3)
    assert np.mean(shares) < 0.94
    # The bound of 0.05 dB holds on training photos. On these held-out ones, at 33 dB, 0.13 dB were lost, with a
    # standard deviation of 0.14 dB: 0.13 + 3 * 0.14 / sqrt(3)
    assert np.mean(losses_db) < 0.38
