"""Photos where the engine computes: on the device while they fit, and from the host's memory otherwise."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.training.torch_loss import MOMENT_BYTES_PER_PIXEL, PhotoMoments, photo_moments


@dataclass
class _Kept:
    photo: NDArray[np.uint8]  # held, so that no other array can get its id
    pixels: Tensor | None = None  # uint8 [H, W, 3] on the device
    pinned: Tensor | None = None  # the same in page-locked memory of the host
    moments: PhotoMoments | None = None
    asked_for_at: int = 0

    @property
    def moment_bytes(self) -> int:
        return self.photo.size // 3 * MOMENT_BYTES_PER_PIXEL


class PhotoStore:
    """Keeps photos as uint8, and their moments for SSIM, each within a number of bytes.

    Who comes first stays. Photos are asked for in a new random order every round, where throwing out the one that was
    not asked for the longest would throw out most of what the round still needs. Only photos that are not asked for any
    more, because training went on to another size, make room.
    """

    def __init__(self, device: str, pixel_bytes: float, moment_bytes: float, pinned_bytes: float = 0) -> None:
        self._device = device
        self._pixel_bytes_left = pixel_bytes
        self._moment_bytes_left = moment_bytes
        self._pinned_bytes_left = pinned_bytes  # of the host; copied from faster than other memory, and without waiting
        self._kept: dict[int, _Kept] = {}
        self._requests = 0
        self._most_kept = 0

    def get(self, photo: NDArray[np.uint8], with_moments: bool) -> tuple[Tensor, PhotoMoments | None]:
        """The photo as float32 [H, W, 3] in 0..1 on the device, and its moments where they are wanted."""
        self._requests += 1
        kept = self._kept.setdefault(id(photo), _Kept(photo))
        kept.asked_for_at = self._requests
        self._most_kept = max(self._most_kept, len(self._kept))
        pixels = self._pixels(kept)
        target = pixels.float() / 255
        return target, self._moments(kept, target) if with_moments else None

    def forget_moments(self) -> bool:
        """Keep no moments any more; whether that gave back any memory."""
        held = [kept for kept in self._kept.values() if kept.moments is not None]
        for kept in held:
            kept.moments = None
        self._moment_bytes_left = 0
        return bool(held)

    def move_to_host(self) -> bool:
        """Keep no photo on the device any more; whether that gave back any memory."""
        held = [kept for kept in self._kept.values() if kept.pixels is not None]
        for kept in held:
            kept.pixels = None
        self._pixel_bytes_left = 0
        return bool(held)

    def _pixels(self, kept: _Kept) -> Tensor:
        if kept.pixels is not None:
            return kept.pixels
        pixels = self._from_host(kept)
        if self._pixel_bytes_left < kept.photo.nbytes:
            self._forget_unused()
        if self._pixel_bytes_left >= kept.photo.nbytes:
            self._pixel_bytes_left -= kept.photo.nbytes
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

    def _from_host(self, kept: _Kept) -> Tensor:
        if kept.pinned is None and self._pinned_bytes_left >= kept.photo.nbytes:
            kept.pinned = torch.from_numpy(kept.photo).pin_memory()
            self._pinned_bytes_left -= kept.photo.nbytes
        source = torch.from_numpy(kept.photo) if kept.pinned is None else kept.pinned
        return source.to(self._device, non_blocking=True, copy=True)

    def _forget_unused(self) -> None:
        """Let go of photos that two whole rounds did not ask for."""
        oldest = self._requests - 2 * self._most_kept
        for key, kept in list(self._kept.items()):
            if kept.asked_for_at >= oldest:
                continue
            del self._kept[key]
            self._pixel_bytes_left += 0 if kept.pixels is None else kept.photo.nbytes
            self._pinned_bytes_left += 0 if kept.pinned is None else kept.photo.nbytes
            self._moment_bytes_left += 0 if kept.moments is None else kept.moment_bytes
