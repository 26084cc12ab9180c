"""Exposure of each photo: cameras expose and balance white anew for every photo, drones above all.

A gain for each photo and channel multiplies the render before it is compared with the photo. It follows the median over
pixels of the ratio of photo and render: holes that are not filled yet, and blur, hardly move a median. Two things keep
gains from taking brightness that belongs to the scene. Their geometric mean over photos is 1. And each is drawn towards
1 by IGNORED: where only one photo shows a place, its gain and the place's colour could otherwise drift apart for ever.

Gains trained by gradient beside the colours, and ratios of mean colours, were tried first: on captures whose exposure
is constant they cost 1 and 3 dB on held-out photos.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE = 0.2  # of the way to the ratio that was seen last: single ones are noisy
IGNORED = 0.06  # of a ratio's logarithm: cameras' steps are a third of a stop, 0.23, and what is small is the scene's
MAX_LOG_GAIN = 1.4  # two stops of exposure
DARKEST = 0.04  # of colours in 0..1: ratios of darker pixels are noise
FEWEST_PIXELS = 50


@dataclass
class Exposures:
    """Log gains of the photos that are trained on."""

    log_gains: NDArray[np.float32]  # [V, 3] by photo and channel
    gauge: int  # so many of them, the first ones, have a geometric mean of 1: those that are trained on from the start

    @classmethod
    def neutral(cls, photos: int) -> "Exposures":
        """All gains 1."""
        return cls(np.zeros((photos, 3), np.float32), photos)

    def gain(self, index: int) -> NDArray[np.float32]:
        """What the render of this photo's view is multiplied by [3]."""
        gain: NDArray[np.float32] = np.exp(self.log_gains[index])
        return gain

    def with_more(self, photos: int) -> "Exposures":
        """These, and so many after them whose gains are 1 and change nothing about the others'."""
        return Exposures(np.concatenate([self.log_gains, np.zeros((photos, 3), np.float32)]), self.gauge)

    def update(self, index: int, photo: NDArray[np.uint8], render: NDArray[np.float32], share: float = SHARE) -> None:
        """Let a photo's gain follow what its pixels [h, w, 3] (255 is 1) say beside the same pixels of the render.

        It moves `share` (0..1) of the way.
        """
        seen = photo / np.float32(255)
        usable = ((seen > DARKEST) & (render > DARKEST) & (seen < 1)).all(axis=2)
        if usable.sum() < FEWEST_PIXELS:
            return
        ratio = np.median(np.log(seen[usable] / render[usable]), axis=0)
        wanted = np.sign(ratio) * np.maximum(np.abs(ratio) - IGNORED, 0)
        self.log_gains[index] += share * (wanted - self.log_gains[index])
        np.clip(self.log_gains, -MAX_LOG_GAIN, MAX_LOG_GAIN, out=self.log_gains)
        self.log_gains -= self.log_gains[: self.gauge].mean(axis=0)
