"""Hidden pixels, as those of a title, neither train nor are measured, on both backends."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.render import reference
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import HIDDEN_FILE, Scene, save_masks
from tasks.core.training.coverage import with_gaps_filled
from tasks.core.training.engine import CpuEngine, Engine
from tasks.core.training.evaluate import evaluate, evaluate_completely
from tasks.core.training.options import TrainOptions
from tasks.core.training.plan import engine_for, plan_for
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.schedule import settings_at
from tasks.core.training.torch_engine import TorchEngine
from tasks.core.training.views import Exposures, View, load_view
from tests.core.render.scenes import random_gaussians

ENGINES: list[object] = [
    pytest.param(CpuEngine, id="cpu"),
    pytest.param(lambda: TorchEngine("reference", "cpu", reference.rasterize), id="torch"),
    pytest.param(
        lambda: engine_for(TrainOptions(backend="cuda", max_gaussians=300)), marks=pytest.mark.cuda, id="cuda"
    ),
]


def moved_by(make_engine: Callable[[], Engine], photo: np.ndarray, hidden: np.ndarray | None) -> dict[str, np.ndarray]:
    gaussians, camera = random_gaussians(250, 40, 30, 3.0, sh_degree=1)
    engine = make_engine()
    population = Population.of(gaussians, 300, engine.device, np.full(250, 9))
    for _ in range(2):
        settings = settings_at(0.9, 1, 1.0, 0.2)
        engine.step(population, camera, photo, np.array([1.1, 0.9, 1], np.float32), settings, None, hidden)
    return {name: population.parameters[name][:250].cpu().numpy().copy() for name in PARAMETERS}


@pytest.mark.parametrize("make_engine", ENGINES)
def test_what_is_hidden_does_not_move_a_gaussian(make_engine: Callable[[], Engine]) -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
    hidden = np.zeros((30, 40), bool)
    hidden[:9, :25] = True
    titled = np.where(hidden[..., None], 255, plain).astype(np.uint8)
    ours, others = moved_by(make_engine, titled, hidden), moved_by(make_engine, plain, hidden)
    for name in PARAMETERS:
        np.testing.assert_array_equal(ours[name], others[name])
    free = moved_by(make_engine, plain, None)
    assert any(not np.array_equal(free[name], ours[name]) for name in PARAMETERS)
    everything = moved_by(make_engine, plain, np.ones((30, 40), bool))
    start = random_gaussians(250, 40, 30, 3.0, sh_degree=1)[0]
    np.testing.assert_allclose(everything["means"], start.means, atol=1e-6)


def test_both_backends_hide_alike() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    hidden = np.zeros((30, 40), bool)
    hidden[:9, :25] = True
    ours = moved_by(CpuEngine, photo, hidden)
    theirs = moved_by(lambda: TorchEngine("reference", "cpu", reference.rasterize), photo, hidden)
    start = random_gaussians(250, 40, 30, 3.0, sh_degree=1)[0]
    for name in PARAMETERS:
        moved, expected = ours[name] - getattr(start, name), theirs[name] - getattr(start, name)
        # as in test_engines: Adam's first steps have the size of the rate, so rounding turns some around; the CPU's
        # target has 255 steps
        assert np.linalg.norm(moved - expected) < 0.1 * np.linalg.norm(expected), name


def with_title(scene: Scene) -> Scene:
    """White upper thirds in all photos, hidden."""
    mask = np.zeros((scene.cameras[0].height, scene.cameras[0].width), bool)
    mask[: len(mask) // 3] = True
    for camera in scene.cameras:
        photo = np.where(mask[..., None], 255, scene.image(camera)).astype(np.uint8)
        Image.fromarray(photo).save(scene.image_path(camera))
    save_masks(scene.folder / HIDDEN_FILE, {camera.name: mask for camera in scene.cameras})
    return Scene.load(scene.folder)


def test_views_of_one_camera_share_their_masks(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = with_title(make_scene())
    plan = plan_for(scene, TrainOptions(backend="cpu"), tmp_path)
    views = plan.all_views
    assert len({id(mask) for view in views for mask in view.hidden}) == len(views[0].hidden)
    for photo, mask in zip(views[0].photos, views[0].hidden, strict=True):
        assert photo.shape[:2] == mask.shape
        assert mask[: len(mask) // 3].all()
        assert not mask[len(mask) // 3 + 1 :].any()


def test_measures_leave_hidden_pixels_out(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    camera, rasterizer = scene.cameras[0], rasterizer_for("cpu")
    gaussians, _ = random_gaussians(200, camera.width, camera.height, 3.0)
    plain = load_view(scene, camera, 960)
    titled = load_view(with_title(scene), camera, 960)
    same_mask = View(plain.cameras, plain.photos, titled.hidden)
    covered = [np.ones((camera.height, camera.width), bool)]
    found = [evaluate_completely(gaussians, [view], rasterizer, covered) for view in (titled, same_mask)]
    assert evaluate(gaussians, [titled], rasterizer).psnr_db == evaluate(gaussians, [same_mask], rasterizer).psnr_db
    assert found[0].psnr_db == found[1].psnr_db != evaluate(gaussians, [plain], rasterizer).psnr_db
    assert found[0].color_corrected_psnr_db == found[1].color_corrected_psnr_db
    assert found[0].covered[0].psnr_db == found[1].covered[0].psnr_db == found[0].psnr_db[0]


def test_no_gap_is_filled_with_the_colour_of_a_title(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    titled = with_title(scene)
    few = replace(scene, points=type(scene.points)(*(array[:30] for array in vars(scene.points).values())))
    views = [load_view(titled, camera, 960) for camera in titled.cameras[:3]]
    filled = with_gaps_filled(few.points, views, scene.up, np.random.default_rng(0))
    assert not (filled.rgb[30:] == 255).all(axis=1).any()


def test_exposure_follows_what_is_not_hidden() -> None:
    rng = np.random.default_rng(0)
    render = rng.uniform(0.2, 0.5, (20, 20, 3)).astype(np.float32)
    photo = (render * 1.5 * 255).astype(np.uint8)
    hidden = np.zeros((20, 20), bool)
    hidden[:12] = True
    photo[hidden] = 30
    exposures = Exposures.neutral(2)
    exposures.update(0, photo, render, 1.0, hidden)
    # half of the logarithm: the other photo's gain makes up for it, as the mean of both is 1
    assert exposures.log_gains[0] == pytest.approx(np.full(3, (np.log(1.5) - 0.06) / 2), abs=0.02)
