"""The loss in torch: mean absolute difference and SSIM, with what depends on the photo alone computed once."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from tasks.core.gaussians import SH_C0
from tasks.core.render.metrics import SSIM_C1, SSIM_C2, SSIM_WINDOW, gaussian_window
from tasks.core.training.depth import LEAST_COVERAGE, NEAREST, SMALL_ERROR, DepthTargets

MARGIN = SSIM_WINDOW // 2
MOMENT_BYTES_PER_PIXEL = 2 * 3 * 4  # of PhotoMoments. float32: half would round away variances near SSIM_C2


@dataclass(frozen=True)
class PhotoMoments:
    """What SSIM needs of a photo besides the photo."""

    mean: Tensor  # [3, H, W] window-weighted mean
    mean_of_squares: Tensor  # [3, H, W]


def photo_moments(photo: Tensor) -> PhotoMoments:
    """Moments of a photo [H, W, 3] in 0..1."""
    y = photo.permute(2, 0, 1)
    both = _windowed(torch.cat([y, y * y]))
    return PhotoMoments(both[:3], both[3:])


def l1_ssim(image: Tensor, photo: Tensor, ssim_weight: float, moments: PhotoMoments | None = None) -> Tensor:
    """(1 - w) mean|x - y| + w (1 - mean SSIM) of images [H, W, 3], with zeros outside them.

    `moments` are those of the photo, where somebody has kept them.
    """
    photo = photo.to(image.dtype)
    l1 = (image - photo).abs().mean()
    if ssim_weight == 0:
        return l1
    moments = moments or photo_moments(photo)
    x, y = image.permute(2, 0, 1), photo.permute(2, 0, 1)  # [3, H, W]
    mean_x, xx, xy = _windowed(torch.cat([x, x * x, x * y])).reshape(3, *x.shape).unbind(0)
    mean_y, yy = moments.mean, moments.mean_of_squares
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    variances = xx - mean_x**2 + yy - mean_y**2
    structure = (2 * (xy - mean_x * mean_y) + SSIM_C2) / (variances + SSIM_C2)
    similarity: Tensor = (luminance * structure).mean()
    return (1 - ssim_weight) * l1 + ssim_weight * (1 - similarity)


def colored_by_depth(parameters: dict[str, Tensor], targets: DepthTargets) -> dict[str, Tensor]:
    """As the function of that name in depth.py, of tensors by name of the parameter."""
    means = parameters["means"]
    pose = torch.as_tensor(targets.camera.cam_from_world, dtype=means.dtype, device=means.device)
    inverse = targets.unit / (means @ pose[2, :3] + pose[2, 3]).clamp_min(targets.unit * NEAREST)
    colors = torch.stack([inverse, torch.ones_like(inverse), torch.ones_like(inverse)], 1)[:, None]
    return {**parameters, "sh0": (colors - 0.5) / SH_C0, "shN": parameters["shN"][:, :0]}


def depth_loss(image: Tensor, targets: DepthTargets, weight: float) -> Tensor:
    """As the function of that name in depth.py, of an image [H, W, 3]."""
    rows, columns, depths = (
        torch.as_tensor(array, device=image.device) for array in (targets.rows, targets.columns, targets.depths)
    )
    drawn, coverage = image[rows, columns, 0], image[rows, columns, 1]
    told = coverage > LEAST_COVERAGE
    found = drawn / torch.where(told, coverage, 1.0)
    error = torch.where(told, found * depths.to(image.dtype) / targets.unit - 1, 0.0)
    huber = torch.nn.functional.huber_loss(error, torch.zeros_like(error), delta=SMALL_ERROR)
    return weight * huber / SMALL_ERROR


def _windowed(stack: Tensor) -> Tensor:
    """Window-weighted sums [C, H, W] of every channel of [C, H, W], zeros outside: one convolution per axis."""
    channels = len(stack)
    kernel = _window(stack.dtype, stack.device).expand(channels, 1, SSIM_WINDOW)
    stack = torch.nn.functional.conv2d(stack[None], kernel[:, :, None, :], padding=(0, MARGIN), groups=channels)
    return torch.nn.functional.conv2d(stack, kernel[:, :, :, None], padding=(MARGIN, 0), groups=channels)[0]


@cache  # from the host to a GPU once: a copy at every step would make the host wait for the GPU
def _window(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(gaussian_window(), dtype=dtype, device=device)
