"""Memory runs out in the CUDA engine, with the specification in gsplat's place and errors on request.

The last test needs a GPU: training as a whole on it.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.core.render import reference
from tasks.core.render.cuda import Gsplat
from tasks.core.scene import Camera
from tasks.core.training import torch_engine
from tasks.core.training.memory import gpu_budget
from tasks.core.training.options import TrainOptions
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import settings_at
from tasks.core.training.torch_engine import MemoryGuard, TorchEngine
from tasks.core.training.torch_loss import PhotoStore
from tasks.core.training.trainer import train
from tests.core.render.scenes import random_gaussians
from tests.core.training.scenes import made_scene

SETTINGS = settings_at(0.9, 3, 1.0, 0.2)
PHOTO = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
GAIN = np.array([1.1, 0.9, 1.0], np.float32)


class Tight(Gsplat):
    """Rasterizes by the specification; runs out of memory as often as the test asks, from the second step on."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.calls = 0

    def __call__(
        self, parameters: dict[str, Tensor], camera: Camera, sh_degree: int, background: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        if self.calls > 1 and self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("as on a small card")
        return reference.rasterize(parameters, camera, sh_degree, background)


def guard(failures: int) -> tuple[MemoryGuard, Tight]:
    rasterize = Tight(failures)
    budget = gpu_budget(15e9, 8e9, [1200], 100, 3)
    photos = PhotoStore("cpu", budget.pixel_bytes, budget.moment_bytes)
    return MemoryGuard(TorchEngine("cuda", "cpu", rasterize, photos), rasterize, budget), rasterize


@pytest.mark.parametrize("failures", range(5))
def test_training_goes_on_with_less_and_says_what_was_given_up(failures: int) -> None:
    gaussians, camera = random_gaussians(60, 40, 30, 3.0)
    engine, rasterize = guard(failures)
    population, undisturbed = (Population.of(gaussians, 100, "cpu") for _ in range(2))
    for _ in range(3):
        loss = engine.step(population, camera, PHOTO, GAIN, SETTINGS).loss
        expected = (
            TorchEngine("reference", "cpu", reference.rasterize).step(undisturbed, camera, PHOTO, GAIN, SETTINGS).loss
        )
        assert loss == pytest.approx(expected, rel=1e-6)
    for name in PARAMETERS:
        assert torch.equal(population.parameters[name][:60], undisturbed.parameters[name][:60]), name
    assert len(engine.decisions) == 1 + min(failures, 3)
    for text, word in zip(engine.decisions[1:], ("moments", "host", "packed"), strict=False):
        assert word in text
    assert rasterize.packed == (failures >= 3)
    assert population.capacity == (60 if failures == 4 else 100)
    assert bool(engine.degradations) == (failures == 4)


def test_when_nothing_is_left_to_give_up_the_error_goes_on() -> None:
    gaussians, camera = random_gaussians(60, 40, 30, 3.0)
    engine, _ = guard(failures=99)
    population = Population.of(gaussians, 100, "cpu")
    engine.step(population, camera, PHOTO, GAIN, SETTINGS)
    with pytest.raises(torch.OutOfMemoryError, match="small card"):
        engine.step(population, camera, PHOTO, GAIN, SETTINGS)


def test_a_packed_rasterizer_makes_the_same_step() -> None:
    gaussians, camera = random_gaussians(200, 40, 30, 3.0)
    gaussians.means[::3] = camera.center - camera.forward  # out of sight
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))

    def packed(
        parameters: dict[str, Tensor], camera: Camera, sh_degree: int, background: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        image, means2d, visible = reference.rasterize(parameters, camera, sh_degree, background)
        rows = order[visible[order]]

        class Packed:
            absgrad = property(lambda _: means2d.absgrad[rows])

        return image, Packed(), rows

    populations = []
    for rasterize in (reference.rasterize, packed):
        populations.append(Population.of(gaussians, 200, "cpu"))
        for _ in range(2):
            TorchEngine("any", "cpu", rasterize).step(populations[-1], camera, PHOTO, GAIN, SETTINGS)
    plain, other = populations
    assert 0 < int(plain.seen.count_nonzero()) < 200
    for field in ("updates", "scores", "seen"):
        assert torch.equal(getattr(plain, field), getattr(other, field)), field
    for name in PARAMETERS:
        assert torch.equal(plain.parameters[name], other.parameters[name]), name


def test_the_loss_is_the_mean_of_a_few_steps_and_shows_what_is_not_finite() -> None:
    gaussians, camera = random_gaussians(60, 40, 30, 3.0)
    each, few = (Population.of(gaussians, 60, "cpu") for _ in range(2))
    every_step, every_third = (TorchEngine("any", "cpu", reference.rasterize, loss_every=n) for n in (1, 3))
    exact = [every_step.step(each, camera, PHOTO, GAIN, SETTINGS).loss for _ in range(7)]
    told = [every_third.step(few, camera, PHOTO, GAIN, SETTINGS).loss for _ in range(7)]
    means = [np.mean(exact[1:4]), np.mean(exact[4:7])]
    assert told == pytest.approx([exact[0]] * 3 + [means[0]] * 3 + [means[1]], rel=1e-6)
    few.parameters["sh0"][:] = float("nan")
    assert not np.isfinite([every_third.step(few, camera, PHOTO, GAIN, SETTINGS).loss for _ in range(3)][-1])


def test_a_share_of_the_card_counts_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"mem_get_info": (70e9, 80e9), "memory_reserved": 3e9, "memory_allocated": 1e9}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    for share, expected in ((1.0, 72e9), (0.2, 15e9)):
        monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda share=share: share)
        assert torch_engine.free_bytes() == pytest.approx(expected)


def test_the_plan_is_made_for_the_photos_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "free_bytes", lambda: 3e9)
    monkeypatch.setattr(torch_engine, "TorchEngine", lambda name, *_: SimpleNamespace(name=name, device="cpu"))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    view = SimpleNamespace(cameras=[SimpleNamespace(width=1600, height=1200)])
    engine = torch_engine.cuda_engine(TrainOptions(max_gaussians=4_000_000), [view] * 20)
    assert engine.max_gaussians is not None
    assert engine.max_gaussians < 4_000_000
    assert "20 photos" in engine.decisions[0]
    assert "4,000,000" in engine.degradations[0]
    assert not torch.backends.cudnn.allow_tf32


def test_masks_that_are_made_anew_for_each_step_are_not_kept() -> None:
    engine = TorchEngine("cuda", "cpu", reference.rasterize)
    shared = [np.eye(4, 5, k, bool) for k in range(4)]
    for _ in range(100):
        assert [engine._mask(mask).shape for mask in shared] == [(4, 5, 1)] * 4
    assert len(engine._masks) == 4
    made = [np.eye(4, 5, k % 4, bool) for k in range(100)]
    for mask in made:
        assert torch.equal(engine._mask(mask)[..., 0], torch.from_numpy(mask))
    assert len(engine._masks) <= 32


def test_photos_that_are_read_anew_for_each_step_train_alike() -> None:
    gaussians, camera = random_gaussians(60, 40, 30, 3.0)
    cameras = [replace(camera, name=name) for name in ("a.jpg", "b.jpg")]
    photos = [PHOTO, PHOTO[::-1].copy()]
    losses: list[list[float]] = []
    for photos_stay in (True, False):
        engine = TorchEngine("cuda", "cpu", reference.rasterize)
        engine.photos_stay = photos_stay
        population = Population.of(gaussians, 100, "cpu")
        losses.append([])
        for index in (0, 1, 1, 0):
            photo = photos[index] if photos_stay else photos[index].copy()
            losses[-1].append(engine.step(population, cameras[index], photo, GAIN, SETTINGS).loss)
            if not photos_stay:
                photo[:] = 0  # its memory is for other photos now
    assert losses[0] == losses[1]


@pytest.mark.cuda
def test_photos_on_the_disk_train_alike(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "made")
    options = TrainOptions(max_image_size=96, steps=300, max_gaussians=900, sh_degree=1, backend="cuda")
    section = train(scene, tmp_path, options.model_copy(update={"max_photos_in_memory": 2}), lambda _: None)
    in_memory = train(scene, tmp_path, options, lambda _: None)
    assert section.psnr_db == pytest.approx(in_memory.psnr_db, abs=0.5)  # dB: atomics add in any order


@pytest.mark.cuda
def test_a_bad_start_becomes_a_good_picture(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "made")
    options = TrainOptions(max_image_size=96, steps=500, max_gaussians=900, sh_degree=1, backend="cuda")
    section = train(scene, tmp_path, options, lambda _: None)
    assert section.backend == "cuda"
    assert section.psnr_db is not None
    assert section.psnr_db > 28  # as on the CPU
    assert section.decisions
    again = train(scene, tmp_path, options, lambda _: None)
    assert again.num_gaussians == pytest.approx(section.num_gaussians, rel=0.1)  # atomics add in any order
