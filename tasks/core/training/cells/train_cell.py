"""Train one cell of a divided scene."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tasks.core.measurements import TrainSection
from tasks.core.ply import write_ply
from tasks.core.scene import Camera, Scene
from tasks.core.training.cells.cell import Cell
from tasks.core.training.cells.cell import Plan as CellsPlan
from tasks.core.training.checkpoint import Checkpoints
from tasks.core.training.coverage import with_gaps_filled
from tasks.core.training.depth import SparseDepths
from tasks.core.training.evaluate import finished_gaussians, is_drawn
from tasks.core.training.options import TrainOptions
from tasks.core.training.plan import Plan, engine_for, halvings_of, read_views
from tasks.core.training.state import TrainingState, identity_of
from tasks.core.training.trainer import (
    PLY_FILE,
    EvaluatedView,
    TrainingStats,
    section_of,
    started_at,
    train_planned,
)

NOTES_FILE = "notes.npz"  # of the Gaussians in PLY_FILE, row by row: what density control knows of them


def train_cell(
    scene: Scene,
    cells: Path,
    number: int,
    out: Path,
    options: TrainOptions,
    on_step: Callable[[TrainingStats], None],
    on_evaluation: Callable[[EvaluatedView], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainSection:
    """Train a cell and write its Gaussians to `out/scene.ply`, those in the margin around the cell included.

    Args:
        scene: the whole scene.
        cells: the folder that `divide` wrote.
        number: of the cell.
        out: as for `train`.
        options: of the whole training, or with fewer `max_gaussians` than the cell may have.
        on_step: as for `train`.
        on_evaluation: as for `train`.
        checkpoints: as for `train`.

    Returns:
        The measurements. Held-out numbers are over the pixels that show the cell or its margin.

    Raises the errors of `train`, and StorageError for another folder.
    """
    divided = CellsPlan.load(cells)
    cell = divided.cells[number]
    own = cell.scene(scene)
    options = options_of(cell, divided, options)
    plan = plan_of(cell, own, options, out)

    def start() -> TrainingState:
        points = own.points
        if options.fill_gaps:
            generator = np.random.default_rng([options.random_seed, 1])
            points = with_gaps_filled(points, plan.views, own.up, generator, cell.far)
        state = started_at(points, own.points, plan, options)
        assert plan.log_gains is not None
        state.exposures = replace(state.exposures, log_gains=plan.log_gains[: len(plan.views)].copy())
        return state

    belongs_to = identity_of(options, plan.engine, own, plan.views + plan.held_out)
    trained = train_planned(plan, options, start, own.points, belongs_to, on_step, on_evaluation, checkpoints)
    population = trained.state.population
    snapshot = population.snapshot()
    gaussians = finished_gaussians(snapshot)
    write_ply(gaussians, out / PLY_FILE)
    drawn, count = is_drawn(snapshot), population.count
    with (out / NOTES_FILE).open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            shown_by=population.shown_by[:count].cpu().numpy()[drawn],
            least_log_scale=population.least_log_scale[:count].cpu().numpy()[drawn],
        )
    return section_of(trained, plan, options, len(gaussians))


def options_of(cell: Cell, divided: CellsPlan, options: TrainOptions) -> TrainOptions:
    """The options of a cell's training: its share of the budgets."""
    budget = options.time_budget_seconds
    if budget is not None:
        of_all = sum(other.steps for other in divided.cells) + divided.seam_steps + divided.joined_steps
        budget = budget * cell.steps / of_all
    return options.model_copy(
        update={
            "steps": cell.steps,
            "max_gaussians": min(cell.max_gaussians, options.max_gaussians),
            "use_all_photos": False,
            "time_budget_seconds": budget,
        }
    )


def plan_of(cell: Cell, own: Scene, options: TrainOptions, folder: Path) -> Plan:
    """As `plan_for`, for the scene of a cell and its options."""
    cameras = {camera.name: camera for camera in own.cameras}

    def named(views: tuple[str, ...]) -> tuple[Camera, ...]:
        return tuple(cameras[name] for name in views)

    training = named(tuple(view.name for view in cell.views))
    held_out = named(tuple(view.name for view in cell.held_out))
    views, measuring, of_photos = read_views(own, training, held_out, options, folder, cell.parts)
    engine = engine_for(options, views)
    affordable = engine.max_gaussians
    return Plan(
        engine=engine,
        views=views,
        held_out=measuring,
        depths=SparseDepths(own, views + measuring),
        scene_radius=own.extent / 2,
        max_gaussians=options.max_gaussians if affordable is None else min(options.max_gaussians, affordable),
        halvings=halvings_of(views),
        decisions=of_photos,
        steps=options.steps,
        joins=False,
        log_gains=cell.log_gains,
    )
