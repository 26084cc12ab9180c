"""The training of one cell."""

from collections.abc import Callable
from pathlib import Path

from tasks.core.measurements import TrainSection
from tasks.core.scene import Scene
from tasks.core.training.checkpoint import Checkpoints
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import EvaluatedView, TrainingStats


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
    """Train one cell of a plan and write its Gaussians to `out/scene.ply`."""
    raise NotImplementedError
