"""The two engines make the same step: numba kernels on one side, autograd through the specification on the other.

What the second engine does around its rasterizer is what runs on CUDA.
"""

import numpy as np
import pytest
import torch

from tasks.core.errors import MissingPartError
from tasks.core.render import reference
from tasks.core.training.cpu_engine import CpuEngine
from tasks.core.training.options import TrainOptions
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import settings_at
from tasks.core.training.torch_engine import TorchEngine
from tasks.core.training.trainer import engine_for
from tests.core.render.scenes import random_gaussians


@pytest.mark.parametrize(("progress", "degree"), [(0.0, 3), (0.3, 2), (0.9, 3), (0.9, 0)])
def test_engines_make_the_same_steps(progress: float, degree: int) -> None:
    gaussians, camera = random_gaussians(250, 40, 30, 3.0, sh_degree=degree)
    photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    settings = settings_at(progress, degree, 1.0, 0.2)
    gain = np.array([1.2, 0.9, 1.05], np.float32)
    fast, slow = (Population.of(gaussians, 300, "cpu") for _ in range(2))
    fast_engine, slow_engine = CpuEngine(), TorchEngine("reference", "cpu", reference.rasterize)
    for _ in range(3):
        made = fast_engine.step(fast, camera, photo, gain, settings)
        expected_step = slow_engine.step(slow, camera, photo, gain, settings)
        assert made.loss == pytest.approx(expected_step.loss, abs=2e-5)
        np.testing.assert_allclose(made.sample, expected_step.sample, atol=1e-3)  # of colours in 0..1
    assert torch.equal(fast.updates, slow.updates)
    assert torch.equal(fast.seen, slow.seen)
    assert float((fast.scores - slow.scores).norm() / slow.scores.norm()) < 1e-3
    for name in PARAMETERS:
        start = torch.as_tensor(getattr(gaussians, name))
        moved, expected = fast.parameters[name][:250] - start, slow.parameters[name][:250] - start
        if expected.numel() and (name != "shN" or settings.sh_degree):
            # Adam's first steps have the size of the rate whatever the gradient, so that a gradient near zero that
            # rounding turns around moves the other way: a share of the length of all moves, not a bound on each
            assert float((moved - expected).norm() / expected.norm()) < 0.05, name
            assert float(expected.norm()) > 0


def test_only_visible_gaussians_are_touched() -> None:
    gaussians, camera = random_gaussians(100, 30, 30, 2.0)
    behind = gaussians.means.copy()
    behind[50:] = camera.center - 5 * camera.forward
    gaussians.means[:] = behind
    population = Population.of(gaussians, 100, "cpu")
    photo = np.zeros((30, 30, 3), np.uint8)
    CpuEngine().step(population, camera, photo, np.ones(3, np.float32), settings_at(0.9, 3, 1.0, 0.2))
    assert not population.updates[50:].any()
    for name in PARAMETERS:
        assert np.array_equal(population.parameters[name][50:].numpy(), getattr(gaussians, name)[50:]), name
    assert population.updates[:50].any()


def test_an_engine_that_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingPartError, match="CUDA"):
        engine_for(TrainOptions(backend="cuda"))
    assert engine_for(TrainOptions(backend="auto")).name == "cpu"
