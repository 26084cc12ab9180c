"""The plan of a training in cells."""

from pathlib import Path

from tasks.core.measurements import CellsSection
from tasks.core.progress import ProgressCallback
from tasks.core.scene import Scene
from tasks.core.training.options import TrainOptions


def divide(scene: Scene, out: Path, options: TrainOptions, count: int, on_progress: ProgressCallback) -> CellsSection:
    """Write the plan into `out`."""
    raise NotImplementedError
