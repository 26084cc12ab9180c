"""Put trained cells together: each Gaussian belongs to the cell in which its centre is, and seams are trained on."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.core.gaussians import Gaussians
from tasks.core.measurements import TrainSection
from tasks.core.ply import read_ply, write_ply
from tasks.core.render.backends import rasterizer_for, resolve_backend
from tasks.core.scene import Scene
from tasks.core.training import schedule
from tasks.core.training.cells.cell import Plan as CellsPlan
from tasks.core.training.cells.regions import Owners
from tasks.core.training.cells.seams import SeamQuality, seam_pixels, seam_quality
from tasks.core.training.cells.surfaces import ObservedPoints, Surfaces
from tasks.core.training.cells.train_cell import NOTES_FILE
from tasks.core.training.checkpoint import Checkpoints
from tasks.core.training.coverage import sky_distance
from tasks.core.training.depth import SparseDepths
from tasks.core.training.evaluate import finished_gaussians
from tasks.core.training.options import TrainOptions
from tasks.core.training.plan import Plan, engine_for, halvings_of, read_views, split_cameras
from tasks.core.training.population import Population
from tasks.core.training.state import Stopwatch, TrainingState, identity_of
from tasks.core.training.trainer import PLY_FILE, EvaluatedView, TrainingStats, section_of, train_planned
from tasks.core.training.views import EndlessShuffle, Exposures, load_view

BEGINS_AT = 0.9  # the progress at which seams are trained: rates have fallen, and the number of Gaussians is constant
LEAST_SEAM = 0.01  # of a photo's squares: photos that show less of seams are left out


def merge_cells(
    scene: Scene,
    cells: Path,
    trained: Sequence[Path],
    out: Path,
    options: TrainOptions,
    on_step: Callable[[TrainingStats], None],
    on_evaluation: Callable[[EvaluatedView], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainSection:
    """Put the cells of a scene together, train on the photos that show seams, and write the splat to `out/scene.ply`.

    Held-out photos measure the splat before they join for the last steps, as in a training of the whole.

    Args:
        scene: the whole scene.
        cells: the folder that `divide` wrote.
        trained: the folders that `train_cell` wrote, in the order of the cells.
        out: as for `train`.
        options: of the whole training.
        on_step: as for `train`.
        on_evaluation: as for `train`.
        checkpoints: as for `train`.

    Raises the errors of `train`, and StorageError for another folder.
    """
    divided = CellsPlan.load(cells)
    gaussians, shown_by, least_log_scale = _owned(divided, trained)
    owners = _owners_of_squares(scene, divided)
    options = _options_of_seams(divided, options, len(gaussians))
    plan = _plan(scene, divided, owners, options, out)

    def start() -> TrainingState:
        population = Population.of(gaussians, len(gaussians), plan.engine.device, shown_by, least_log_scale)
        population.sort()
        return _state(population, plan, options)

    belongs_to = identity_of(options, plan.engine, scene, plan.views + plan.held_out) + _digest(gaussians)
    ended = train_planned(plan, options, start, scene.points, belongs_to, on_step, on_evaluation, checkpoints)
    merged = finished_gaussians(ended.state.population.snapshot())
    write_ply(merged, out / PLY_FILE)
    return section_of(ended, plan, options, len(merged))


def seams_of(scene: Scene, cells: Path, options: TrainOptions, splat: Path) -> SeamQuality:
    """Measure a splat, however it was trained, at the seams of a plan.

    Args:
        scene: the whole scene.
        cells: the folder that `divide` wrote.
        options: of the training.
        splat: a folder with `scene.ply`.
    """
    owners = _owners_of_squares(scene, CellsPlan.load(cells))
    held_out = split_cameras(scene, options.hold_out_every)[1]
    views = [load_view(scene, camera, options.max_image_size) for camera in held_out]
    seams = [seam_pixels(owners[view.cameras[0].name], view.cameras[0]) for view in views]
    return seam_quality(read_ply(splat / PLY_FILE), views, seams, rasterizer_for(resolve_backend(options.backend)))


def _owned(divided: CellsPlan, trained: Sequence[Path]) -> tuple[Gaussians, NDArray[np.float32], NDArray[np.float32]]:
    """The Gaussians of all cells without their margins, with what density control knows of them."""
    parts, shown_by, least = [], [], []
    for cell, folder in zip(divided.cells, trained, strict=True):
        gaussians = read_ply(folder / PLY_FILE)
        owned = divided.regions.owner(gaussians.means.astype(np.float64)) == cell.number
        parts.append(gaussians.take(owned))
        with np.load(folder / NOTES_FILE, allow_pickle=False) as notes:
            shown_by.append(notes["shown_by"][owned])
            least.append(notes["least_log_scale"][owned])
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    return Gaussians(**joined), np.concatenate(shown_by), np.concatenate(least)


def _owners_of_squares(scene: Scene, divided: CellsPlan) -> dict[str, Owners]:
    """The owners of each photo's squares, by name."""
    observed, far = ObservedPoints(scene), sky_distance(scene.points)
    return {
        camera.name: Surfaces.of(camera, scene.points.xyz[observed.of(number)], scene.up, far).owners(divided.regions)
        for number, camera in enumerate(scene.cameras)
    }


def _options_of_seams(divided: CellsPlan, options: TrainOptions, count: int) -> TrainOptions:
    """The options of the last part: its share of the budgets, and no other number of Gaussians."""
    budget = options.time_budget_seconds
    steps = divided.seam_steps + divided.joined_steps
    if budget is not None:
        budget = budget * steps / (sum(cell.steps for cell in divided.cells) + steps)
    return options.model_copy(
        update={
            "steps": steps,
            "max_gaussians": max(count, 1),
            "time_budget_seconds": budget,
            "early_stop": False,
            "max_prune_loss_db": 0.0,  # each cell has been pruned, by all of its photos
        }
    )


def _plan(scene: Scene, divided: CellsPlan, owners: dict[str, Owners], options: TrainOptions, folder: Path) -> Plan:
    training, held_out = split_cameras(scene, options.hold_out_every)
    at_seams = tuple(camera for camera in training if _shows_seam(owners[camera.name])) or training
    views, measuring, of_photos = read_views(scene, at_seams, held_out, options, folder)
    engine = engine_for(options, views + measuring)
    numbers = {camera.name: number for number, camera in enumerate(scene.cameras)}
    seams = [seam_pixels(owners[view.cameras[0].name], view.cameras[0]) for view in measuring]
    rasterizer = rasterizer_for(resolve_backend(options.backend))

    def measure_seams(gaussians: Gaussians) -> SeamQuality:
        return seam_quality(gaussians, measuring, seams, rasterizer)

    return Plan(
        engine=engine,
        views=views,
        held_out=measuring,
        depths=SparseDepths(scene, views + measuring),
        scene_radius=scene.extent / 2,
        max_gaussians=options.max_gaussians,
        halvings=halvings_of(views),
        decisions=of_photos,
        steps=max(divided.seam_steps, 1),
        joins=divided.joined_steps > 0 and bool(measuring),
        joined_steps=divided.joined_steps,
        begins_at=BEGINS_AT,
        log_gains=divided.log_gains[[numbers[view.cameras[0].name] for view in (*views, *measuring)]],
        all_training=training,
        measures_also=lambda gaussians: vars(measure_seams(gaussians)),
    )


def _shows_seam(owners: Owners) -> bool:
    changes = (owners[1:] != owners[:-1]).sum() + (owners[:, 1:] != owners[:, :-1]).sum()
    return bool(changes >= LEAST_SEAM * owners.size)


def _state(population: Population, plan: Plan, options: TrainOptions) -> TrainingState:
    """The state before the first step on seams."""
    generator = np.random.default_rng([options.random_seed, 3])
    assert plan.log_gains is not None
    views = len(plan.views)
    return TrainingState(
        population=population,
        exposures=Exposures(plan.log_gains[:views].copy(), views),
        order=EndlessShuffle(views, generator),
        torch_generator=torch.Generator(plan.engine.device).manual_seed(options.random_seed),
        watch=Stopwatch(options.time_budget_seconds),
        initial_count=population.count,
        losses=np.zeros((len(schedule.EVALUATE_AT) + 1, views, 2)),
        progress=plan.begins_at,
        refinements=schedule.REFINEMENTS,
    )


def _digest(gaussians: Gaussians) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in vars(gaussians).values():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
