"""What fits a GPU's memory: decided before training from free bytes, photos and wishes, by arithmetic alone.

The order in which things are given up is that of what they cost: photos on the GPU (a copy each step), unpacked
projection (slower bookkeeping), and last the number of Gaussians, which costs quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.gaussians import SH_COEFFICIENTS, floats_per_gaussian
from tasks.core.training.memory import MIN_GAUSSIANS
from tasks.core.training.torch_loss import MOMENT_BYTES_PER_PIXEL

# Left alone: the caching allocator's fragments, cuBLAS and cuDNN workspaces, what else runs there. An estimate.
SPARE_SHARE = 0.1
# The allocator's rounding and gsplat's sort buffers for small scenes. An estimate.
SPARE_BYTES = 300e6

FLOAT_BYTES = 4
COPIES_PER_PARAMETER = 4  # parameter, gradient, Adam's two moments: counted in population.py and torch_engine.py
NOTES_BYTES = 8 + 4 + 4 + 4 + 4  # updates int64; scores, seen, shown_by and least_log_scale float32: population.py

# Of a step, for each Gaussian. gsplat's own table (docs, eval.rst: MCMC at 3M and 1M, 4.99 and 1.98 GB) grows by
# 1,505 B a Gaussian at degree 3, of which 59 x 16 = 944 B are parameters, gradients and Adam; the rest is projection,
# colours and the sorted pairs of Gaussian and tile.
STEP_BYTES = 560
# Packed, all that is there for visible Gaussians only. 0.3 is the share below which gsplat's documentation advises it.
PACKED_STEP_SHARE = 0.3
# Our Adam gathers the rows of one parameter: gradient, two moments, and the step; counted in torch_engine.adam.
ADAM_GATHERED_COPIES = 4

# Of a step, for each pixel of the largest photo: 9 + 9 + 9 channels of SSIM's convolutions, about 15 maps [3, H, W] of
# its formula that autograd keeps, as much again for their gradients, and the image. Counted, not measured.
STEP_BYTES_PER_PIXEL = 2 * (27 * 4 + 15 * 12) + 48

PYRAMID = 1 + 1 / 4 + 1 / 16 + 1 / 64  # of views.py
PHOTO_BYTES_PER_PIXEL = 3
PINNED_SHARE = 0.25  # of the host's free memory: page-locked pages cannot be swapped out, so most is left alone


@dataclass(frozen=True)
class GpuBudget:
    """How training shall use a GPU."""

    max_gaussians: int
    packed: bool
    pixel_bytes: int  # for photos on the GPU: all of them, or none
    moment_bytes: int  # for their moments
    pinned_bytes: int  # of the host's memory
    decisions: tuple[str, ...]  # what was chosen and why, for people
    degradations: tuple[str, ...]  # what is worse than was asked for


def bytes_per_gaussian(sh_degree: int, packed: bool) -> float:
    """In training, at the moment of greatest need."""
    sh_floats = 3 * (SH_COEFFICIENTS[sh_degree] - 1)
    share = PACKED_STEP_SHARE if packed else 1.0
    gathered = ADAM_GATHERED_COPIES * FLOAT_BYTES * max(sh_floats, 4)
    return (
        COPIES_PER_PARAMETER * FLOAT_BYTES * floats_per_gaussian(sh_degree)
        + NOTES_BYTES
        + share * (STEP_BYTES + gathered)
    )


def gpu_budget(
    free_bytes: float, host_free_bytes: float, photo_pixels: Sequence[int], max_gaussians: int, sh_degree: int
) -> GpuBudget:
    """Decide.

    Args:
        free_bytes: of the GPU, before training allocates anything.
        host_free_bytes: of the machine.
        photo_pixels: pixels of each photo at full training size, those trained on.
        max_gaussians: the number asked for.
        sh_degree: of the spherical harmonics.
    """
    free = free_bytes * (1 - SPARE_SHARE) - SPARE_BYTES - STEP_BYTES_PER_PIXEL * max(photo_pixels, default=0)
    photos = sum(photo_pixels) * PYRAMID * PHOTO_BYTES_PER_PIXEL
    choices = ((True, False), (False, False), (False, True))
    for on_gpu, packed in choices:
        left = free - max_gaussians * bytes_per_gaussian(sh_degree, packed) - (photos if on_gpu else 0)
        if left >= 0:
            count = max_gaussians
            break
    else:
        left, count = 0.0, max(int(max(free, 0) / bytes_per_gaussian(sh_degree, packed)), MIN_GAUSSIANS)
        count = min(count, max_gaussians)
    moments = min(left, sum(photo_pixels) * PYRAMID * MOMENT_BYTES_PER_PIXEL) if on_gpu else 0
    where = "on the GPU" if on_gpu else "in the host's memory"
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
        pinned_bytes=0 if on_gpu else int(min(photos, PINNED_SHARE * host_free_bytes)),
        decisions=(decision,),
        degradations=() if count == max_gaussians else (given_up,),
    )
