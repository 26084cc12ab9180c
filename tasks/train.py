"""The train stage: turn a scene into Gaussians."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import OutOfMemoryError, TrainingDivergedError
from tasks.core.measurements import TrainSection
from tasks.core.progress import Progress
from tasks.core.refs import GaussiansRef, Ref, RunContext, SceneRef
from tasks.core.scene import Scene
from tasks.core.stage_code import StageCode
from tasks.core.training.memory import budgets, lowered, memory_errors_explained
from tasks.core.training.options import WITHOUT_EFFECT, TrainOptions
from tasks.reporting.progress import run_logger, stage_progress
from tasks.reporting.training_board import TrainingBoard
from tasks.running.checkpoints import StageCheckpoints
from tasks.running.gpu import computing_backend, gpu_slot
from tasks.running.interruption import run_apart
from tasks.running.stage import Stage, open_output, run_stage

if TYPE_CHECKING:  # torch takes a second and 200 MB, which a run that trains elsewhere saves
    from tasks.core.training.trainer import TrainingStats

TRAIN = Stage(
    "train",
    StageCode(("tasks.core.training.trainer",), ("torch", "numba", "numpy", "scipy", "PIL", "gsplat")),
    TrainSection,
)
# Options that are not part of the output's name: some do not change the output; the backend counts as resolved.
NOT_NAMING = (*WITHOUT_EFFECT, "backend")
REPORT_INTERVAL_SECONDS = 0.5


@TRAIN.task
def train_gaussians(scene: SceneRef, options: TrainOptions, context: RunContext) -> GaussiansRef:
    """Optimise Gaussians to look like the scene's images, with fewer photos in memory or Gaussians if it is short.

    Raises TrainingDivergedError, or OutOfMemoryError if even the smallest budget needs too much memory.
    """
    # The run that dispatched this one looks for exactly the output that it asked for, and lowers the budget itself.
    for budget in [options] if context.dispatched else budgets(options, scene.cameras):
        if budget != options:
            run_logger().warning("%s", lowered(options, budget))
        try:
            output = _train(scene, budget, context)
            break
        except OutOfMemoryError as error:
            run_logger().warning("%s", error)
            last_error = error
    else:
        raise last_error
    measured = TRAIN.measured(output, context)
    return GaussiansRef.of(
        output,
        count=measured.num_gaussians,
        psnr_db=measured.psnr_db,
        degradations=(*_given_up(options, budget), *measured.degradations),
    )


def _train(scene: SceneRef, options: TrainOptions, context: RunContext) -> Ref:
    inputs, naming_options = [scene.digest], options.model_dump(mode="json", exclude=set(NOT_NAMING))
    backend = computing_backend(TRAIN.name, options.backend, context)
    checkpoints: StageCheckpoints | None = None

    def kept_state() -> StageCheckpoints:
        key = TRAIN.key(inputs, naming_options, backend)
        return StageCheckpoints(context, key, options.checkpoint_seconds)

    def compute(folder: Path) -> TrainSection:
        from tasks.core.training.trainer import train

        nonlocal checkpoints
        checkpoints = kept = kept_state()
        loaded = Scene.load(open_output(scene, context))
        board = TrainingBoard(context)
        with memory_errors_explained(options):
            try:
                return run_apart(
                    lambda: train(loaded, folder, options, _on_step(board), board.on_evaluation, kept), kept.interrupt
                )
            except TrainingDivergedError:
                kept.discard()  # continuing from it would diverge again
                raise

    try:
        output = run_stage(
            TRAIN,
            context,
            inputs=inputs,
            options=naming_options,
            compute=compute,
            backend=backend,
            changed={"options": options},
            while_computing=gpu_slot(backend),
        )
    except OutOfMemoryError:  # here or in the stage's own run; resuming would run out of memory again
        (checkpoints or kept_state()).discard()
        raise
    if checkpoints is not None:
        checkpoints.discard()
    return output


def _given_up(asked: TrainOptions, used: TrainOptions) -> tuple[str, ...]:
    if used.max_gaussians == asked.max_gaussians:  # fewer photos in memory cost no quality
        return ()
    share = used.max_gaussians / asked.max_gaussians
    return (
        f"Memory did not suffice for the Gaussians that were asked for: trained with {share:.0%} of them "
        f"(at most {used.max_gaussians:,} instead of {asked.max_gaussians:,}, and {used.pixels_per_gaussian:g} pixels "
        "each).",
    )


def _on_step(board: TrainingBoard) -> Callable[["TrainingStats"], None]:
    """Return a callback that passes statistics to the board, and reports progress a few times a second."""
    report = stage_progress(TRAIN.name)
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
