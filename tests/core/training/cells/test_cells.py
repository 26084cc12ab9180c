"""A scene that is divided, trained in cells, and put together."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.errors import InputError, StorageError
from tasks.core.measurements import CellsSection, TrainSection
from tasks.core.ply import read_ply
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.training.cells import merge
from tasks.core.training.cells.cell import Plan
from tasks.core.training.cells.count import number_of_cells
from tasks.core.training.cells.divide import divide
from tasks.core.training.cells.merge import merge_cells
from tasks.core.training.cells.seams import SEAM_PX, seam_pixels
from tasks.core.training.cells.train_cell import train_cell
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import TrainingStats

OPTIONS = TrainOptions(
    max_image_size=160, steps=200, max_gaussians=700, pixels_per_gaussian=0, sh_degree=1, fill_gaps=False
)


def no_news(_: TrainingStats) -> None:
    """Ignore a step."""


@pytest.fixture(scope="session")
def wide_scene(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Scene:
    from tests.core.training.scenes import made_scene

    return made_scene(tmp_path_factory.mktemp("wide"), width=160, height=120, points=300)


@pytest.fixture(scope="session")
def divided(wide_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellsSection]:
    out = tmp_path_factory.mktemp("cells")
    return out, divide(wide_scene, out, OPTIONS, 2, ignore_progress)


@pytest.fixture(scope="session")
def trained(
    wide_scene: Scene, divided: tuple[Path, CellsSection], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Path, TrainSection]]:
    folders = [tmp_path_factory.mktemp(f"cell{number}") for number in range(2)]
    return [
        (folder, train_cell(wide_scene, divided[0], number, folder, OPTIONS, no_news))
        for number, folder in enumerate(folders)
    ]


def test_every_point_and_photo_has_its_cell(wide_scene: Scene, divided: tuple[Path, CellsSection]) -> None:
    plan = Plan.load(divided[0])
    assert set(plan.owners) == {0, 1}
    seeds = [set(cell.seeds.tolist()) for cell in plan.cells]
    for cell in plan.cells:
        assert set(np.flatnonzero(plan.owners == cell.number)) <= seeds[cell.number]
    assert seeds[0] & seeds[1]  # the margins
    training = {camera.name for number, camera in enumerate(wide_scene.cameras) if number % 8}
    assert {view.name for cell in plan.cells for view in cell.views} == training
    assert sum(cell.share for cell in divided[1].cells) == pytest.approx(1)  # every square has one owner


def test_the_plan_is_the_same_every_time(wide_scene: Scene, divided: tuple[Path, CellsSection], tmp_path: Path) -> None:
    assert divide(wide_scene, tmp_path, OPTIONS, 2, ignore_progress) == divided[1]
    for file in divided[0].iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_another_photo_changes_the_cells_that_it_shows_alone(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = make_scene(width=160, height=120, points=300)
    camera = scene.cameras[5]
    near = replace(camera, fx=4 * camera.fx, fy=4 * camera.fy)  # a photo that shows little of the scene
    scene = replace(scene, cameras=(*scene.cameras[:5], near, *scene.cameras[6:]))
    places = {}
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        places[name] = divide(scene, tmp_path / name, OPTIONS, 6, ignore_progress)
        photo = scene.image_path(scene.cameras[5])
        pixels = np.array(Image.open(photo))
        pixels[0, 0, 0] ^= 1
        Image.fromarray(pixels).save(photo)
    showing = {
        cell.number for cell in Plan.load(tmp_path / "before").cells if "005.png" in {view.name for view in cell.views}
    }
    changed = {old.number for old, new in zip(places["before"].cells, places["after"].cells, strict=True) if old != new}
    assert changed == showing
    assert 0 < len(changed) < 6


def test_merged_gaussians_are_in_their_own_cell(
    wide_scene: Scene, divided: tuple[Path, CellsSection], trained: list[tuple[Path, TrainSection]], tmp_path: Path
) -> None:
    section = merge_cells(wide_scene, divided[0], [folder for folder, _ in trained], tmp_path, OPTIONS, no_news)
    assert section.num_gaussians == len(read_ply(tmp_path / "scene.ply"))
    regions = Plan.load(divided[0]).regions
    owned = [
        (regions.owner(read_ply(folder / "scene.ply").means.astype(np.float64)) == number).sum()
        for number, (folder, _) in enumerate(trained)
    ]
    assert section.num_gaussians <= sum(owned)  # none twice, and none more than the cells have
    assert section.num_gaussians > 0.8 * sum(owned)  # the final prune takes some
    assert section.steps == round(0.04 * OPTIONS.steps) + round(0.08 * OPTIONS.steps)
    assert section.seam_psnr_db is not None
    assert section.interior_psnr_db is not None
    assert section.psnr_db is not None
    assert section.psnr_db > 20  # dB; the start has 13


def test_merging_twice_gives_the_same_bytes(
    wide_scene: Scene, divided: tuple[Path, CellsSection], trained: list[tuple[Path, TrainSection]], tmp_path: Path
) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        merge_cells(wide_scene, divided[0], [folder for folder, _ in trained], tmp_path / name, OPTIONS, no_news)
        contents.append((tmp_path / name / "scene.ply").read_bytes())
    assert contents[0] == contents[1]


def test_steps_are_shared_by_the_photos_of_a_cell(divided: tuple[Path, CellsSection]) -> None:
    plan = Plan.load(divided[0])
    each = (OPTIONS.steps - plan.seam_steps - plan.joined_steps) / 14  # photos to train on
    for cell in plan.cells:
        assert cell.steps == round(each * len(cell.views))


def test_seams_are_the_pixels_near_a_change_of_owner(wide_scene: Scene) -> None:
    camera = replace(wide_scene.cameras[0], width=640, height=480)
    owners = np.zeros((48, 64), np.int16)
    owners[:, 32:] = 1
    columns = np.flatnonzero(seam_pixels(owners, camera).all(axis=0))
    assert columns.tolist() == list(range(319 - SEAM_PX, 320 + SEAM_PX + 1))
    assert not seam_pixels(np.zeros((48, 64), np.int16), camera).any()


@pytest.mark.parametrize(
    ("cameras", "available", "expected"),
    [(200, None, 1), (600, None, 1), (601, None, 3), (5000, None, 17), (600, 1e9, 3), (600, 64e9, 1)],
)
def test_cells_for_photos_and_memory(cameras: int, available: float | None, expected: int) -> None:
    # 600 photos of 960 x 720 px at 7 px each: 3.7 million Gaussians, of which 1.5 million are allowed
    options = TrainOptions(max_gaussians=500_000, pixels_per_gaussian=7.0)
    assert number_of_cells(options, cameras, cameras * 960 * 720, available) == expected


def test_too_many_cells_are_refused() -> None:
    with pytest.raises(InputError, match="at most 4"):
        number_of_cells(TrainOptions(cells=9), 36, 36 * 960 * 720, None)


def test_a_folder_without_a_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="plan of cells"):
        Plan.load(tmp_path)


def test_a_time_budget_of_seams_is_shared_as_their_steps_are(
    wide_scene: Scene, divided: tuple[Path, CellsSection], tmp_path: Path
) -> None:
    cells = Plan.load(divided[0])
    owners = {camera.name: np.zeros((48, 64), np.int16) for camera in wide_scene.cameras}
    plan = merge._plan(wide_scene, cells, owners, OPTIONS, tmp_path)
    assert (plan.steps, plan.joined_steps) == (8, 16)
    assert plan.share_before_joining == pytest.approx(1 / 3)
