"""The joining of trained cells."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.core.measurements import TrainSection
from tasks.core.scene import Scene
from tasks.core.training.checkpoint import Checkpoints
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import EvaluatedView, TrainingStats


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
    """Join trained cells into one splat and write it to `out/scene.ply`."""
    raise NotImplementedError
