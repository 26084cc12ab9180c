"""Decisions before the first step."""

from pathlib import Path

import numpy as np
import psutil
import pytest

from tasks.core.machine_memory import available_memory_bytes
from tasks.core.scene import Scene
from tasks.core.training import memory, plan
from tasks.core.training.memory import affordable_gaussians
from tasks.core.training.options import TrainOptions
from tasks.core.training.plan import coarsest_level, plan_for
from tasks.core.training.trainer import train
from tasks.core.training.views import View
from tests.core.render.scenes import random_gaussians

SMALL = TrainOptions(max_image_size=96, steps=12, max_gaussians=900, sh_degree=0, backend="cpu")


def view_of(photo: np.ndarray) -> View:
    _, camera = random_gaussians(1, photo.shape[1], photo.shape[0], 1.0)
    levels = [photo]
    for _ in range(3):
        height, width = levels[-1].shape[0] // 2, levels[-1].shape[1] // 2
        levels.append(levels[-1].reshape(height, 2, width, 2, 3).mean(axis=(1, 3)).astype(np.uint8))
    return View((camera,) * 4, tuple(levels))


def test_blurred_photos_begin_smaller_than_detailed_ones() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    smooth = np.tile(np.linspace(0, 255, 64)[:, None, None], (1, 64, 3)).astype(np.uint8)
    blocks = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    assert coarsest_level([view_of(noise)]) == 0  # halving takes three quarters of noise's variance
    assert coarsest_level([view_of(blocks)]) == 2
    assert coarsest_level([view_of(smooth)]) == 3
    assert coarsest_level([view_of(np.zeros((64, 64, 3), np.uint8))]) == 0  # nothing to be seen, nothing to be divided


def test_memory_limits_the_gaussians_and_the_report_says_so(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MIN_GAUSSIANS", 10)
    monkeypatch.setattr(plan, "available_memory_bytes", lambda: 400_000)
    section = train(scene, tmp_path, SMALL, lambda _: None)
    most = affordable_gaussians(400_000, 0)
    assert section.num_gaussians <= most < 900
    assert [f"{most} instead of 900 Gaussians" in sentence for sentence in section.degradations] == [True]


def test_bytes_buy_gaussians() -> None:
    assert 4.6e6 < affordable_gaussians(16e9, 3) < 5.6e6  # 2.5 kB each, a fifth left alone
    assert affordable_gaussians(16e9, 0) > 1.2 * affordable_gaussians(16e9, 3)
    assert affordable_gaussians(0, 3) == memory.MIN_GAUSSIANS
    assert 0 < available_memory_bytes() <= psutil.virtual_memory().total


def test_decisions_are_told(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.schedule, "FEWEST_GAUSSIANS", 10)
    made = plan_for(scene, SMALL.model_copy(update={"pixels_per_gaussian": 23.0}), tmp_path)
    assert made.max_gaussians == 348
    assert any("At most 348 Gaussians: a typical place is in 12.1 photos" in sentence for sentence in made.decisions)
    assert any(f"1/{2**made.halvings} of their size" in sentence for sentence in made.decisions)
