"""The number of cells: one part where that is enough, more for many photos or little memory."""

from tasks.core.errors import InputError
from tasks.core.training import schedule
from tasks.core.training.memory import SPARE_SHARE, cpu_bytes_each
from tasks.core.training.options import TrainOptions, cells_for

FEWEST_PHOTOS_EACH = 8  # of a cell that the user asks for
FEWEST_PHOTOS_BY_MEMORY = 50  # of a cell that is small because memory is short: smaller ones are mostly margin
MARGIN_SHARE = 0.4  # Gaussians in a cell's margin, for one that the cell keeps: an estimate, before the cells are known


def number_of_cells(options: TrainOptions, cameras: int, pixels: int, memory_bytes: float | None) -> int:
    """How many cells a scene is trained in.

    Args:
        options: see TrainOptions; a number that the user chose is taken.
        cameras: photos with a camera.
        pixels: of all photos at training size.
        memory_bytes: of the machine that trains, used or not, so that the next attempt finds the cells of this one;
            None if another one does, or a GPU.

    Raises:
        InputError: the user asked for more cells than there are photos for.
    """
    if options.cells is not None:
        if options.cells > 1 and options.cells * FEWEST_PHOTOS_EACH > cameras:
            raise InputError(
                f"{options.cells} cells are too many for {cameras} photos: a cell needs {FEWEST_PHOTOS_EACH} photos or "
                f"more. Set train.cells to at most {max(cameras // FEWEST_PHOTOS_EACH, 1)}, or to auto."
            )
        return options.cells
    count = cells_for(cameras)
    if memory_bytes is None:
        return count
    shown_by = min(schedule.USUAL_OVERLAP, max(cameras / 2, 1.0))
    wanted = schedule.most_gaussians(pixels, shown_by, options.max_gaussians, options.pixels_per_gaussian)
    needed = wanted * cpu_bytes_each(options.sh_degree)
    room = memory_bytes * (1 - SPARE_SHARE)
    most = max(cameras // FEWEST_PHOTOS_BY_MEMORY, count)
    while count < most and needed * (1 if count == 1 else (1 + MARGIN_SHARE) / count) > room:
        count += 1
    return count
