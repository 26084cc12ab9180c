"""The loss in torch, and the photos for it: on the device as far as they fit, else in the host's memory.

The loss is mean absolute difference and SSIM. The part that depends on the photo alone is computed once.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.gaussians import SH_C0
from tasks.core.render.metrics import SSIM_C1, SSIM_C2, SSIM_WINDOW, gaussian_window
from tasks.core.training.depth import LEAST_COVERAGE, NEAREST, SMALL_ERROR, DepthTargets
from tasks.core.training.memory import MOMENT_BYTES_PER_PIXEL

MARGIN = SSIM_WINDOW // 2


@dataclass(frozen=True)
class PhotoMoments:
    """The part of SSIM that depends on the photo alone."""

    mean: Tensor  # [3, H, W] window-weighted mean
    mean_of_squares: Tensor  # [3, H, W]


def photo_moments(photo: Tensor) -> PhotoMoments:
    """Moments of a photo [H, W, 3] in 0..1."""
    y = photo.permute(2, 0, 1)
    both = _windowed(torch.cat([y, y * y]))
    return PhotoMoments(both[:3], both[3:])


def l1_ssim(image: Tensor, photo: Tensor, ssim_weight: float, moments: PhotoMoments | None = None) -> Tensor:
    """(1 - w) mean|x - y| + w (1 - mean SSIM) of images [H, W, 3], with zeros outside them.

    `moments` are those of the photo, if they are known.
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
    """The same as `depth.colored_by_depth`, for tensors by name of the parameter."""
    means = parameters["means"]
    pose = torch.as_tensor(targets.camera.cam_from_world, dtype=means.dtype, device=means.device)
    inverse = targets.unit / (means @ pose[2, :3] + pose[2, 3]).clamp_min(targets.unit * NEAREST)
    colors = torch.stack([inverse, torch.ones_like(inverse), torch.ones_like(inverse)], 1)[:, None]
    return {**parameters, "sh0": (colors - 0.5) / SH_C0, "shN": parameters["shN"][:, :0]}


def depth_loss(image: Tensor, targets: DepthTargets, weight: float) -> Tensor:
    """The same as `depth.depth_loss`, of an image [H, W, 3], for autograd."""
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


@cache  # copied to the GPU once: a copy at every step would make the host wait for the GPU
def _window(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.as_tensor(gaussian_window(), dtype=dtype, device=device)


@dataclass
class _Kept:
    nbytes: int  # of the photo
    photo: NDArray[np.uint8] | None  # kept, so that no other array can get its id; None if it has a name
    pixels: Tensor | None = None  # uint8 [H, W, 3] on the device
    pinned: Tensor | None = None  # the same in page-locked memory of the host
    moments: PhotoMoments | None = None
    asked_for_at: int = 0

    @property
    def moment_bytes(self) -> int:
        return self.nbytes // 3 * MOMENT_BYTES_PER_PIXEL


class PhotoStore:
    """Keeps photos as uint8, and their moments for SSIM, each within a limit of bytes.

    The first photos stay. Photos are used in a new random order every round, so removing the least recently used one
    would remove most of what the round still needs. Only photos that are no longer used, because training uses another
    size, are removed.
    """

    def __init__(self, device: str, pixel_bytes: float, moment_bytes: float, pinned_bytes: float = 0) -> None:
        self._device = device
        self._pixel_bytes_left = pixel_bytes
        self._moment_bytes_left = moment_bytes
        self._pinned_bytes_left = pinned_bytes  # of the host; copies from there are faster, and the host need not wait
        self._kept: dict[Hashable, _Kept] = {}
        self._buffer = torch.empty(0, dtype=torch.uint8)  # page-locked, for photos that are read from the disk
        self._copied: torch.cuda.Event | None = None  # from the buffer to the device
        self._requests = 0
        self._most_kept = 0

    def get(
        self, photo: NDArray[np.uint8], with_moments: bool, name: Hashable | None = None
    ) -> tuple[Tensor, PhotoMoments | None]:
        """The photo as float32 [H, W, 3] in 0..1 on the device, and its moments if wanted.

        Its array must stay where it is and unchanged, or `name` stands for it: then no reference to the array is kept.
        """
        self._requests += 1
        key, array = (id(photo), photo) if name is None else (name, None)
        kept = self._kept.setdefault(key, _Kept(photo.nbytes, array))
        kept.asked_for_at = self._requests
        self._most_kept = max(self._most_kept, len(self._kept))
        pixels = self._pixels(kept, photo)
        target = pixels.float() / 255
        return target, self._moments(kept, target) if with_moments else None

    def forget_moments(self) -> bool:
        """Stop keeping moments; returns whether that freed memory."""
        held = [kept for kept in self._kept.values() if kept.moments is not None]
        for kept in held:
            kept.moments = None
        self._moment_bytes_left = 0
        return bool(held)

    def move_to_host(self) -> bool:
        """Stop keeping photos on the device; returns whether that freed memory."""
        held = [kept for kept in self._kept.values() if kept.pixels is not None]
        for kept in held:
            kept.pixels = None
        self._pixel_bytes_left = 0
        return bool(held)

    def _pixels(self, kept: _Kept, photo: NDArray[np.uint8]) -> Tensor:
        if kept.pixels is not None:
            return kept.pixels
        pixels = self._from_host(kept) if kept.photo is photo else self._through_buffer(photo)
        if self._pixel_bytes_left < kept.nbytes:
            self._forget_unused()
        if self._pixel_bytes_left >= kept.nbytes:
            self._pixel_bytes_left -= kept.nbytes
            kept.pixels = pixels
        return pixels

    def _moments(self, kept: _Kept, target: Tensor) -> PhotoMoments:
        if kept.moments is not None:
            return kept.moments
        moments = photo_moments(target)
        if self._moment_bytes_left < kept.moment_bytes:
            self._forget_unused()
        if self._moment_bytes_left >= kept.moment_bytes:
            self._moment_bytes_left -= kept.moment_bytes
            kept.moments = moments
        return moments

    def _through_buffer(self, photo: NDArray[np.uint8]) -> Tensor:
        """Copy a photo that does not stay in memory, by way of one page-locked buffer."""
        source = torch.from_numpy(photo)
        if self._device == "cpu":
            return source.clone()
        if self._copied is not None:
            self._copied.synchronize()
        if self._buffer.numel() < photo.size:
            self._buffer = torch.empty(photo.size, dtype=torch.uint8, pin_memory=True)
        page_locked = self._buffer[: photo.size].view(photo.shape)
        page_locked.copy_(source)
        pixels = page_locked.to(self._device, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()
        return pixels

    def _from_host(self, kept: _Kept) -> Tensor:
        assert kept.photo is not None
        if kept.pinned is None and self._pinned_bytes_left >= kept.nbytes:
            kept.pinned = torch.from_numpy(kept.photo).pin_memory()
            self._pinned_bytes_left -= kept.nbytes
        source = torch.from_numpy(kept.photo) if kept.pinned is None else kept.pinned
        return source.to(self._device, non_blocking=True, copy=True)

    def _forget_unused(self) -> None:
        """Forget photos that were not used for two whole rounds."""
        oldest = self._requests - 2 * self._most_kept
        for key, kept in list(self._kept.items()):
            if kept.asked_for_at >= oldest:
                continue
            del self._kept[key]
            self._pixel_bytes_left += 0 if kept.pixels is None else kept.nbytes
            self._pinned_bytes_left += 0 if kept.pinned is None else kept.nbytes
            self._moment_bytes_left += 0 if kept.moments is None else kept.moment_bytes
