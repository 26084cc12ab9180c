"""Memory of training: how many Gaussians fit into a machine's or a GPU's memory, and smaller budgets if it runs out.

The number is computed before training, by arithmetic alone, from free bytes, photos and options. If memory runs out
nevertheless, the stage reports it in one sentence and starts again with fewer photos in memory or fewer Gaussians.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.core.errors import OutOfMemoryError
from tasks.core.gaussians import SH_COEFFICIENTS, floats_per_gaussian
from tasks.core.machine_memory import available_memory_bytes
from tasks.core.training.options import MOST_PIXELS_PER_GAUSSIAN, TrainOptions

SMALLER_SHARES = (0.5, 0.25)  # of the Gaussians asked for; if a quarter is too much, the photos are too large
MIN_GAUSSIANS = 1000  # fewer make no useful picture
FEW_PHOTOS_IN_MEMORY = 16  # of the next try: twice as many as are read ahead
LARGE_PART = 0.2  # of the memory: if photos are less, holding fewer of them does not help
USUAL_ASPECT = 0.75  # of a photo's height to its width, as most cameras have it; the sizes are not known here

# Share of the free memory that is left for other programs and for everything not counted here.
SPARE_SHARE = 0.2
# A parameter, two moments, a gradient in a buffer that grows by quarters, and a copy when it is measured or saved.
BYTES_PER_FLOAT = 4 * (1 + 2 + 1.25 + 1)
# Projection, sorting and pairs of tile and Gaussian. Measured at degree 3, 960x640 and 200k to 1M Gaussians: 1.6 kB for
# each Gaussian in all, with 1.3 to 2 pairs each. A pair takes 65 B, and this leaves room for 10. The render of depths
# has such buffers of its own, without harmonics: 350 B, counted.
BYTES_PER_GAUSSIAN = 950 + 350

# Left for the caching allocator's fragments, workspaces of cuBLAS and cuDNN, and other programs. An estimate.
GPU_SPARE_SHARE = 0.1
# The allocator's rounding and gsplat's sort buffers for small scenes. An estimate.
GPU_SPARE_BYTES = 300e6

FLOAT_BYTES = 4
COPIES_PER_PARAMETER = 4  # parameter, gradient, Adam's two moments: counted in population.py and torch_engine.py
NOTES_BYTES = 8 + 4 + 4 + 4 + 4  # updates int64; scores, seen, shown_by and least_log_scale float32: population.py

# In a step, for each Gaussian. gsplat's own table (docs, eval.rst: MCMC at 3M and 1M, 4.99 and 1.98 GB) grows by
# 1,505 B a Gaussian at degree 3. 59 x 16 = 944 B of them are parameters, gradients and Adam; the rest is projection,
# colours and the sorted pairs of Gaussian and tile.
STEP_BYTES = 560
# Packed, only visible Gaussians need these bytes. gsplat's documentation advises packing below a share of 0.3.
PACKED_STEP_SHARE = 0.3
# Our Adam gathers the rows of one parameter: gradient, two moments, and the step; counted in torch_engine.adam.
ADAM_GATHERED_COPIES = 4

# In a step, for each pixel of the largest photo: 9 + 9 + 9 channels of SSIM's convolutions, about 15 maps [3, H, W] of
# its formula that autograd keeps, as much again for their gradients, and the image. Counted, not measured.
STEP_BYTES_PER_PIXEL = 2 * (27 * 4 + 15 * 12) + 48

PYRAMID = 1 + 1 / 4 + 1 / 16 + 1 / 64  # pixels of a photo and its halvings (schedule.MAX_HALVINGS), per photo pixel
PHOTO_BYTES_PER_PIXEL = 3
MOMENT_BYTES_PER_PIXEL = 2 * 3 * 4  # of PhotoMoments. float32: float16 would round away variances near SSIM_C2
PINNED_SHARE = 0.25  # of the host's free memory, at most: page-locked pages cannot be swapped out


def budgets(options: TrainOptions, photos: int) -> Iterator[TrainOptions]:
    """Yield the options as they are, then with fewer photos in memory, then also with fewer Gaussians.

    Fewer photos cost nothing but time, so they come first, where `photos` of them are a large part of the memory. The
    Gaussians are lowered by whichever option limits them.
    """
    yield options
    if photos_are_large_part(options, photos):
        options = options.model_copy(update={"max_photos_in_memory": FEW_PHOTOS_IN_MEMORY})
        yield options
    for share in SMALLER_SHARES:
        count = int(options.max_gaussians * share)
        if count >= MIN_GAUSSIANS:
            coarser = min(options.pixels_per_gaussian / share, MOST_PIXELS_PER_GAUSSIAN)
            fewer = {"max_gaussians": count, "pixels_per_gaussian": coarser}
            yield options.model_copy(update=fewer)


def photos_are_large_part(options: TrainOptions, photos: int) -> bool:
    """Whether so many photos, or as many as may be in memory, can be LARGE_PART of what training needs on the CPU."""
    held = min(photos, options.max_photos_in_memory or photos)
    of_photos = held * USUAL_ASPECT * options.max_image_size**2 * PYRAMID * PHOTO_BYTES_PER_PIXEL
    of_gaussians = options.max_gaussians * cpu_bytes_each(options.sh_degree)
    return held > FEW_PHOTOS_IN_MEMORY and of_photos > LARGE_PART * (of_photos + of_gaussians)


def lowered(asked: TrainOptions, used: TrainOptions) -> str:
    """A sentence for people about the next try of `budgets`."""
    photos = (
        f"at most {used.max_photos_in_memory:,} photos in memory"
        if used.max_photos_in_memory != asked.max_photos_in_memory and used.max_photos_in_memory is not None
        else ""
    )
    gaussians = f"at most {used.max_gaussians:,} Gaussians" if used.max_gaussians != asked.max_gaussians else ""
    return f"trying again with {' and '.join(filter(None, (photos, gaussians)))}"


@contextmanager
def memory_errors_explained(options: TrainOptions) -> Iterator[None]:
    """Raise OutOfMemoryError instead of the different errors that libraries raise when memory runs out."""
    import torch  # here, so that callers who only need `budgets` do not load it

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _explained(options) from error
    except RuntimeError as error:  # raised by torch's CPU allocator
        if "allocate memory" not in str(error):
            raise
        raise _explained(options) from error


def _explained(options: TrainOptions) -> OutOfMemoryError:
    free = available_memory_bytes() / 1e9
    return OutOfMemoryError(
        f"Memory did not suffice for up to {options.max_gaussians:,} Gaussians at {options.max_image_size} px "
        f"({free:.1f} GB are free now): lower train.max_image_size, train.max_gaussians or "
        "train.max_photos_in_memory, or raise train.pixels_per_gaussian."
    )


def affordable_gaussians(available_bytes: float, sh_degree: int) -> int:
    """The number of Gaussians of a degree that fit into the available bytes, at least MIN_GAUSSIANS."""
    return max(MIN_GAUSSIANS, int(available_bytes * (1 - SPARE_SHARE) / cpu_bytes_each(sh_degree)))


def cpu_bytes_each(sh_degree: int) -> float:
    """The most bytes that a Gaussian of a degree needs in training on the CPU."""
    return floats_per_gaussian(sh_degree) * BYTES_PER_FLOAT + BYTES_PER_GAUSSIAN


@dataclass(frozen=True)
class GpuBudget:
    """A plan for the use of a GPU in training."""

    max_gaussians: int
    packed: bool
    pixel_bytes: int  # for photos on the GPU: all of them, or none
    moment_bytes: int  # for their moments
    pinned_bytes: int  # of the host's memory
    decisions: tuple[str, ...]  # choices and their reasons, for people
    degradations: tuple[str, ...]  # differences from the options that cost quality


def gpu_bytes_each(sh_degree: int, packed: bool) -> float:
    """Bytes that a Gaussian needs in training on a GPU, at its peak."""
    sh_floats = 3 * (SH_COEFFICIENTS[sh_degree] - 1)
    share = PACKED_STEP_SHARE if packed else 1.0
    gathered = ADAM_GATHERED_COPIES * FLOAT_BYTES * max(sh_floats, 4)
    return (
        COPIES_PER_PARAMETER * FLOAT_BYTES * floats_per_gaussian(sh_degree)
        + NOTES_BYTES
        + share * (STEP_BYTES + gathered)
    )


def gpu_budget(
    free_bytes: float,
    host_free_bytes: float,
    photo_pixels: Sequence[int],
    max_gaussians: int,
    sh_degree: int,
    photos_on_disk: bool = False,
) -> GpuBudget:
    """Decide where photos are kept, how Gaussians are projected and how many there may be.

    Saves memory in the order of the cost: first photos in the host's memory (a copy each step), then packed projection
    (slower bookkeeping), and last fewer Gaussians, which costs quality.

    Args:
        free_bytes: of the GPU, before training allocates anything.
        host_free_bytes: of the machine.
        photo_pixels: pixels of each training photo at full training size.
        max_gaussians: the number asked for.
        sh_degree: degree of the spherical harmonics.
        photos_on_disk: whether the host's memory has no room for them, so that none is kept there.
    """
    free = free_bytes * (1 - GPU_SPARE_SHARE) - GPU_SPARE_BYTES - STEP_BYTES_PER_PIXEL * max(photo_pixels, default=0)
    photos = sum(photo_pixels) * PYRAMID * PHOTO_BYTES_PER_PIXEL
    choices = ((True, False), (False, False), (False, True))
    for on_gpu, packed in choices:
        left = free - max_gaussians * gpu_bytes_each(sh_degree, packed) - (photos if on_gpu else 0)
        if left >= 0:
            count = max_gaussians
            break
    else:
        left, count = 0.0, max(int(max(free, 0) / gpu_bytes_each(sh_degree, packed)), MIN_GAUSSIANS)
        count = min(count, max_gaussians)
    moments = min(left, sum(photo_pixels) * PYRAMID * MOMENT_BYTES_PER_PIXEL) if on_gpu else 0
    where = "on the GPU" if on_gpu else "on the disk" if photos_on_disk else "in the host's memory"
    projection = "packed" if packed else "unpacked"
    decision = (
        f"{free_bytes / 1e9:.1f} GB of GPU memory were free: "
        f"{len(photo_pixels)} photos ({photos / 1e9:.2f} GB) {where}, "
        f"{moments / 1e9:.2f} GB for their SSIM moments, {projection} projection, at most {count:,} Gaussians."
    )
    given_up = f"GPU memory ({free_bytes / 1e9:.1f} GB free) suffices for {count:,} of {max_gaussians:,} Gaussians."
    return GpuBudget(
        max_gaussians=count,
        packed=packed,
        pixel_bytes=round(photos) if on_gpu else 0,
        moment_bytes=int(moments),
        pinned_bytes=0 if on_gpu or photos_on_disk else int(min(photos, PINNED_SHARE * host_free_bytes)),
        decisions=(decision,),
        degradations=() if count == max_gaussians else (given_up,),
    )
