"""Training in cells: a plan, each cell by itself, and the joined splat, which is the train stage's output.

The plan and every cell are outputs of their own. A cell's output is named by the digest that the plan gives it, and not
by the scene's, so a cell that was lost, or whose photos have changed, is trained alone.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.core.machine_memory import total_memory_bytes
from tasks.core.measurements import CellPlan, CellsSection, TrainSection
from tasks.core.refs import CellRef, CellsRef, GaussiansRef, Ref, RunContext, SceneRef
from tasks.core.report.divided_scene import DividedScene
from tasks.core.scene import SCENE_FILE, Scene
from tasks.core.training.cells.cell import OWNERS_FILE, PLAN_FILE
from tasks.core.training.cells.count import number_of_cells
from tasks.core.training.memory import budgets
from tasks.core.training.options import TrainOptions
from tasks.places.workspace import open_workspace
from tasks.reporting.artifacts import Shown, show_picture
from tasks.reporting.progress import called, stage_progress
from tasks.reporting.recording import current_recording
from tasks.running.dispatch import runs_elsewhere
from tasks.running.gpu import computing_backend
from tasks.running.stage import open_output, run_stage
from tasks.train import CELL, CELLS, TRAIN, given_up, naming, run_training, train_gaussians, with_less_memory

CELLS_PICTURE = "pictures/cells.png"


def train_splat(scene: SceneRef, options: TrainOptions, context: RunContext) -> GaussiansRef:
    """Train the scene's splat in one part, or in cells if it is too large for one. Called by the flow itself.

    Cells are tasks of the flow, and never runs of a training's run: a run that waits for others would hold the place in
    the pool that they need.
    """
    count = _number_of_cells(scene, options, context)
    if count == 1:
        return train_gaussians(scene, options, context)
    plan = plan_cells(scene, options, count, context)
    cells = train_cell.each(
        [
            {"scene": scene, "plan": plan, "number": cell.number, "digest": cell.digest}
            | {"options": _options_of(cell, options), "context": _expecting(cell, context)}
            for cell in CELLS.measured(plan, context).cells
        ],
        context,
    )
    return _whole(train_gaussians(scene, options, context, plan, tuple(cells)))


def measured_training(gaussians: GaussiansRef, context: RunContext) -> TrainSection:
    """Return what training measured, with what each cell has taken in this run."""
    measured = TRAIN.measured(gaussians, context)
    if not gaussians.cells:
        return measured
    cells = tuple(
        cell.model_copy(update={"seconds": ref.seconds, "cached": ref.cached})
        for cell, ref in zip(measured.cells, gaussians.cells, strict=True)
    )
    return measured.model_copy(update={"cells": cells})


def divided_scene(plan: CellsRef, context: RunContext) -> DividedScene:
    """Return what pictures show of a plan. Raises StorageError or FormatError."""
    store = open_workspace(context.workspace)
    return DividedScene.read(store.read(plan.uri, PLAN_FILE), store.read(plan.uri, OWNERS_FILE))


@CELLS.task
def plan_cells(scene: SceneRef, options: TrainOptions, count: int, context: RunContext) -> CellsRef:
    """Divide the scene into about `count` cells."""

    def compute(folder: Path) -> CellsSection:
        from tasks.core.training.cells.divide import divide

        loaded = Scene.load(open_output(scene, context))
        return divide(loaded, folder, options, count, stage_progress(CELLS.name))

    named = {**naming(options), "count": count}
    output = run_stage(CELLS, context, inputs=[scene.digest], options=named, compute=compute)
    plan = CellsRef.of(output, count=len(CELLS.measured(output, context).cells))
    if (recording := current_recording()) is not None:
        recording.show("cells", lambda: _map_of_cells(scene, plan, context))
    return plan


def _map_of_cells(scene: SceneRef, plan: CellsRef, context: RunContext) -> Shown | None:
    """The plan from above as a picture, for people."""
    from tasks.core.report.charts import cell_map_picture  # loads matplotlib, which takes a second

    picture = cell_map_picture(Scene.load(open_output(scene, context)), divided_scene(plan, context))
    said = " ".join(CELLS.measured(plan, context).decisions)
    return show_picture(CELLS_PICTURE, picture, f"Cells from above. {said}".strip(), context)


@CELL.task_called("cell-{number:02}")
def train_cell(
    scene: SceneRef, plan: CellsRef, number: int, digest: str, options: TrainOptions, context: RunContext
) -> CellRef:
    """Train one cell of the plan, with fewer Gaussians if memory is short.

    `digest` is the cell's in the plan, `options` are those of this cell. Raises as `train_gaussians` does.
    """

    def train_with(budget: TrainOptions) -> Ref:
        def train(loaded: Scene, out: Path, *callbacks: Any) -> TrainSection:
            from tasks.core.training.cells.train_cell import train_cell as train_one

            return train_one(loaded, open_output(plan, context), number, out, budget, *callbacks)

        return run_training(CELL, scene, budget, context, inputs=[digest], train=train, changed={"options": budget})

    views = CELLS.measured(plan, context).cells[number].views
    output, budget = with_less_memory(options, budgets(options, views), context, train_with)
    measured = CELL.measured(output, context)
    said = (*given_up(options, budget), *measured.degradations)
    return CellRef.of(
        output,
        number=number,
        count=measured.num_gaussians,
        psnr_db=measured.psnr_db,
        degradations=tuple(f"{called(CELL.name)}: {sentence}" for sentence in said),
    )


def _number_of_cells(scene: SceneRef, options: TrainOptions, context: RunContext) -> int:
    if options.cells == 1:
        return 1
    described = json.loads(open_workspace(context.workspace).read(scene.uri, SCENE_FILE))
    pixels = sum(camera["width"] * camera["height"] for camera in described["cameras"])
    trains_here = not runs_elsewhere(TRAIN.name, context)
    on_cpu = computing_backend(TRAIN.name, options.backend, context) == "cpu"
    memory = total_memory_bytes() if trains_here and on_cpu else None
    return number_of_cells(options, scene.cameras, pixels, memory)


def _options_of(cell: CellPlan, options: TrainOptions) -> TrainOptions:
    """Return the options of one cell's training.

    What is only done to the whole is switched off, so that choosing it differently trains no cell again.
    """
    own = {"steps": cell.steps, "max_gaussians": cell.max_gaussians}
    return options.model_copy(update={**own, "use_all_photos": False})


def _expecting(cell: CellPlan, context: RunContext) -> RunContext:
    """Return the context with the expected seconds of one cell: its share of the training's."""
    whole = context.expected_seconds.get(TRAIN.name)
    if whole is None:
        return context
    return context.model_copy(update={"expected_seconds": {**context.expected_seconds, CELL.name: cell.share * whole}})


def _whole(joined: GaussiansRef) -> GaussiansRef:
    """Return the ref of the joined splat with time, cost, memory and degradations of the plan and all cells."""
    assert joined.plan is not None
    parts: tuple[Ref, ...] = (joined.plan, *joined.cells, joined)
    return joined.model_copy(
        update={
            "cached": all(part.cached for part in parts),
            "seconds": _sum(part.seconds for part in parts),
            "cost_usd": _sum(part.cost_usd for part in parts),
            "peak_memory_bytes": max((part.peak_memory_bytes or 0 for part in parts), default=0) or None,
            "degradations": (*(said for cell in joined.cells for said in cell.degradations), *joined.degradations),
        }
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
