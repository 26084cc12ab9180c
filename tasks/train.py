"""The train stage: turn a scene into Gaussians, in one part or by joining the cells of a training in cells."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, JsonValue

from tasks.core.errors import OutOfMemoryError, TrainingDivergedError
from tasks.core.measurements import CellSection, CellsSection, TrainSection
from tasks.core.progress import Progress
from tasks.core.refs import CellRef, CellsRef, GaussiansRef, Ref, RunContext, SceneRef
from tasks.core.scene import Scene
from tasks.core.stage_code import StageCode
from tasks.core.training.memory import budgets, lowered, memory_errors_explained
from tasks.core.training.options import WITHOUT_EFFECT, TrainOptions
from tasks.reporting.progress import called, run_logger, stage_progress
from tasks.reporting.training_board import TrainingBoard
from tasks.running.checkpoints import StageCheckpoints
from tasks.running.gpu import computing_backend, gpu_slot
from tasks.running.interruption import run_apart
from tasks.running.stage import Stage, open_output, run_stage

if TYPE_CHECKING:  # torch takes a second and 200 MB, which a run that trains elsewhere saves
    from tasks.core.training.trainer import EvaluatedView, TrainingStats

    OnStep = Callable[[TrainingStats], None]
    OnEvaluation = Callable[[EvaluatedView], None]

LIBRARIES = ("torch", "numba", "numpy", "scipy", "PIL", "gsplat")
TRAIN = Stage("train", StageCode(("tasks.core.training.trainer",), LIBRARIES), TrainSection)
MERGE = Stage("train", StageCode(("tasks.core.training.cells.merge",), LIBRARIES), TrainSection)
# Parts of the stage with outputs of their own: tasks/cells.py.
CELLS = Stage("cells", StageCode(("tasks.core.training.cells.divide",), LIBRARIES), CellsSection)
CELL = Stage("cell", StageCode(("tasks.core.training.cells.train_cell",), LIBRARIES), TrainSection)
# Options that are not part of the output's name: some do not change the output; the backend counts as resolved; the
# number of cells decides which outputs are made, and not what is in them.
NOT_NAMING = (*WITHOUT_EFFECT, "backend", "cells")
REPORT_INTERVAL_SECONDS = 0.5

# Trains a scene into a folder. The last three arguments are those of `tasks.core.training.trainer.train`.
Training = Callable[[Scene, Path, "OnStep", "OnEvaluation", StageCheckpoints], TrainSection]


@TRAIN.task
def train_gaussians(
    scene: SceneRef,
    options: TrainOptions,
    context: RunContext,
    plan: CellsRef | None = None,
    cells: tuple[CellRef, ...] = (),
) -> GaussiansRef:
    """Optimise Gaussians to look like the scene's images, with fewer photos in memory or Gaussians if it is short.

    With a `plan` of cells, join its trained `cells` into one splat instead.

    Raises TrainingDivergedError, or OutOfMemoryError if even the smallest budget needs too much memory.
    """
    tries = budgets(options, scene.cameras)
    if plan is None:
        output, used = with_less_memory(options, tries, context, lambda budget: _train(scene, budget, context))
    else:  # how many Gaussians it has is decided by its cells
        tries = (budget for budget in tries if budget.max_gaussians == options.max_gaussians)
        output, used = with_less_memory(
            options, tries, context, lambda budget: _merge(scene, budget, context, plan, cells)
        )
    measured = TRAIN.measured(output, context)
    return GaussiansRef.of(
        output,
        count=measured.num_gaussians,
        psnr_db=measured.psnr_db,
        degradations=(*given_up(options, used), *measured.degradations),
        plan=plan,
        cells=cells,
    )


def with_less_memory(
    options: TrainOptions, tries: Iterable[TrainOptions], context: RunContext, train: Callable[[TrainOptions], Ref]
) -> tuple[Ref, TrainOptions]:
    """Train with the first of `tries`, which are `budgets` of the options, for which memory suffices.

    Return the options used too.

    Raises OutOfMemoryError.
    """
    # The run that dispatched this one looks for exactly the output that it asked for, and lowers the budget itself.
    for budget in [options] if context.dispatched else tries:
        if budget != options:
            run_logger().warning("%s", lowered(options, budget))
        try:
            return train(budget), budget
        except OutOfMemoryError as error:
            run_logger().warning("%s", error)
            last_error = error
    raise last_error


def naming(options: TrainOptions) -> dict[str, JsonValue]:
    """Return the options that are part of an output's name."""
    return options.model_dump(mode="json", exclude=set(NOT_NAMING))


def run_training(
    stage: Stage[TrainSection],
    scene: SceneRef,
    options: TrainOptions,
    context: RunContext,
    *,
    inputs: Sequence[str],
    train: Training,
    changed: dict[str, BaseModel] | None = None,
) -> Ref:
    """Return the output of a stage that trains, with checkpoints, a GPU's slot, and its progress on the dashboard.

    The arguments are those of `run_stage`. Raises TrainingDivergedError or OutOfMemoryError.
    """
    naming_options = naming(options)
    backend = computing_backend(stage.name, options.backend, context)
    checkpoints: StageCheckpoints | None = None

    def kept_state() -> StageCheckpoints:
        key = stage.key(inputs, naming_options, backend)
        return StageCheckpoints(context, key, options.checkpoint_seconds)

    def compute(folder: Path) -> TrainSection:
        nonlocal checkpoints
        checkpoints = kept = kept_state()
        loaded = Scene.load(open_output(scene, context))
        name = called(stage.name)
        board = TrainingBoard(context, None if stage.name == TRAIN.name else name)
        with memory_errors_explained(options):
            try:
                return run_apart(
                    lambda: train(loaded, folder, _on_step(board, name), board.on_evaluation, kept), kept.interrupt
                )
            except TrainingDivergedError:
                kept.discard()  # continuing from it would diverge again
                raise

    try:
        output = run_stage(
            stage,
            context,
            inputs=inputs,
            options=naming_options,
            compute=compute,
            backend=backend,
            changed=changed,
            while_computing=gpu_slot(backend),
        )
    except OutOfMemoryError:  # here or in the stage's own run; resuming would run out of memory again
        (checkpoints or kept_state()).discard()
        raise
    if checkpoints is not None:
        checkpoints.discard()
    return output


def _train(scene: SceneRef, options: TrainOptions, context: RunContext) -> Ref:
    def train(loaded: Scene, out: Path, *callbacks: Any) -> TrainSection:
        from tasks.core.training.trainer import train as train_scene

        return train_scene(loaded, out, options, *callbacks)

    return run_training(
        TRAIN, scene, options, context, inputs=[scene.digest], train=train, changed={"options": options}
    )


def _merge(
    scene: SceneRef, options: TrainOptions, context: RunContext, plan: CellsRef, cells: tuple[CellRef, ...]
) -> Ref:
    def merge(loaded: Scene, out: Path, *callbacks: Any) -> TrainSection:
        from tasks.core.training.cells.merge import merge_cells

        trained = [open_output(cell, context) for cell in cells]
        measured = merge_cells(loaded, open_output(plan, context), trained, out, options, *callbacks)
        planned = CELLS.measured(plan, context)
        sections = _cell_sections(planned, cells, context)
        before, joined = sum(section.steps for section in sections), measured.held_out_joined_at_step
        return measured.model_copy(
            update={
                "cells": sections,
                "steps": before + measured.steps,
                "held_out_joined_at_step": None if joined is None else before + joined,
                "decisions": (*planned.decisions, *measured.decisions),
            }
        )

    inputs = [scene.digest, plan.digest, *(cell.digest for cell in cells)]
    return run_training(MERGE, scene, options, context, inputs=inputs, train=merge, changed={"options": options})


def _cell_sections(planned: CellsSection, cells: tuple[CellRef, ...], context: RunContext) -> tuple[CellSection, ...]:
    return tuple(
        CellSection(
            number=cell.number,
            views=cell.views,
            ring_views=cell.ring_views,
            num_gaussians=measured.num_gaussians,
            steps=measured.steps,
            psnr_db=measured.psnr_db,
        )
        for cell, measured in zip(planned.cells, (CELL.measured(ref, context) for ref in cells), strict=True)
    )


def given_up(asked: TrainOptions, used: TrainOptions) -> tuple[str, ...]:
    """Return sentences on what the second options lack of the first."""
    if used.max_gaussians == asked.max_gaussians:  # fewer photos in memory cost no quality
        return ()
    share = used.max_gaussians / asked.max_gaussians
    return (
        f"Memory did not suffice for the Gaussians that were asked for: trained with {share:.0%} of them "
        f"(at most {used.max_gaussians:,} instead of {asked.max_gaussians:,}, and {used.pixels_per_gaussian:g} pixels "
        "each).",
    )


def _on_step(board: TrainingBoard, name: str) -> Callable[["TrainingStats"], None]:
    """Return a callback that passes statistics to the board, and reports progress a few times a second."""
    report = stage_progress(name)
    reported_at = -float("inf")

    def on_step(stats: "TrainingStats") -> None:
        nonlocal reported_at
        board.on_step(stats)
        now = time.monotonic()
        if stats.stopped_by is None and now - reported_at < REPORT_INTERVAL_SECONDS:
            return
        reported_at = now
        report(Progress(100 * stats.share, 100, _note(stats)))

    return on_step


def _note(stats: "TrainingStats") -> str:
    quality = "" if stats.psnr_db is None else f"{stats.psnr_db:.2f} dB, "
    ended = ""
    if stats.stopped_by is not None and stats.step < stats.steps:
        ended = f", ended early ({stats.stopped_by}) at step {stats.step:,} of {stats.steps:,}"
    return f"{quality}{stats.num_gaussians:,} Gaussians, loss {stats.loss:.3f}{ended}"
