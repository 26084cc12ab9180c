"""The number of cells of a training."""

from tasks.core.training.options import TrainOptions


def number_of_cells(options: TrainOptions, cameras: int, pixels: int, available_bytes: float | None) -> int:
    """Return the number of cells; 1 is one part. `available_bytes` is None if another machine trains."""
    del cameras, pixels, available_bytes
    return 1 if options.cells == "auto" else options.cells
