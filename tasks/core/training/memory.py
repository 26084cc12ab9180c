"""What to do when memory does not suffice for training: say so in one sentence, and try with fewer Gaussians."""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import OutOfMemoryError
from tasks.core.machine_memory import available_memory_bytes
from tasks.core.training.options import MOST_PIXELS_PER_GAUSSIAN, TrainOptions

SMALLER_SHARES = (0.5, 0.25)  # of the Gaussians asked for; what a quarter does not cure, the photos' size causes
MIN_GAUSSIANS = 1000  # below it there is no picture worth computing


def budgets(options: TrainOptions) -> Iterator[TrainOptions]:
    """The options as given, then with smaller numbers of Gaussians, whatever it is that limits them."""
    yield options
    for share in SMALLER_SHARES:
        count = int(options.max_gaussians * share)
        if count >= MIN_GAUSSIANS:
            coarser = min(options.pixels_per_gaussian / share, MOST_PIXELS_PER_GAUSSIAN)
            fewer = {"max_gaussians": count, "pixels_per_gaussian": coarser}
            yield options.model_copy(update=fewer)


@contextmanager
def memory_errors_explained(options: TrainOptions) -> Iterator[None]:
    """Turn the libraries' several ways of running out of memory into OutOfMemoryError."""
    import torch  # here, so that who only needs the budgets does not load it

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _explained(options) from error
    except RuntimeError as error:  # what torch's CPU allocator raises
        if "allocate memory" not in str(error):
            raise
        raise _explained(options) from error


def _explained(options: TrainOptions) -> OutOfMemoryError:
    free = available_memory_bytes() / 1e9
    return OutOfMemoryError(
        f"Memory did not suffice for up to {options.max_gaussians:,} Gaussians at {options.max_image_size} px "
        f"({free:.1f} GB are free now): lower train.max_image_size or train.max_gaussians, or raise "
        "train.pixels_per_gaussian."
    )
