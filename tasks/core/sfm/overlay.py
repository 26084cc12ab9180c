"""Parts of the frame that look the same in every photo of a camera: a title, bars, a bonnet, a drone's legs.

They agree in every pair of photos at no motion at all, which can outweigh the place itself, and training would put them
into the splat. A pixel is unchanging if its brightness hardly differs between all photos. A clear sky, a dark night or
snow is unchanging too, so a patch of such pixels counts only if it is sharply bounded: either everything right beside
it changes as much as photos of a place do, or it has edges of its own, which only something fixed to the camera has.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # [h, w] of a small copy of the frame; True where it never changes

SIDE = 800  # px of the small copies' long side, at most: strokes of a title are still a pixel wide
FEWEST_PHOTOS = 8  # of one camera: fewer are alike by chance
LEAST_CHANGE = 8.0  # grey levels (of 255), of places that change: below it the photos themselves are alike
STILL = 3.0, 5.0  # grey levels of deviation by compression alone, at least and at most
STILL_SHARE = 0.08  # of the usual change, between the two: reflections
# Right beside a patch, of the usual change. A cloudy sky, here and there as bright in all photos, changes less.
BESIDE_SHARE = 0.4
CHANGED = 16  # grey levels from the first photo, which compression does not reach
CHANGED_SHARE = 0.5  # of the photos, right beside a patch: beside a sky one photo in many shows something else
BOUNDED_SHARE = 0.6  # of a patch's surroundings that must change as much
INNER_EDGE = 16.0  # grey levels a pixel of the small copy
INNER_EDGE_SHARE = 0.05  # of a patch's pixels
SMALLEST_SHARE = 4e-5  # of the frame: 20 px of 800 x 600, a part of a letter
MOST_PATCHES = 2000
MOST_SHARE = 0.6  # of the frame: beyond it the camera stood still
LARGEST_HOLE_SHARE = 0.02  # of the frame: digits of a clock in a bar, and not the place within a frame of bars
BORDER = 2  # px of the small copy by which a patch is enlarged: blur and compression of its edge
FEATURE_BORDER = 6  # px more, within which a feature shows a part of it


def reduction(width: int, height: int) -> int:
    """Return by which whole number the sides of a grey copy are divided for its statistics."""
    return -(-max(width, height) // SIDE)


class FrameChanges:
    """How much every pixel differs between the photos of one camera."""

    ARRAYS: ClassVar = ("first", "sum", "squares", "changed")

    def __init__(self) -> None:
        self.photos = 0
        self._first: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self._sum: NDArray[np.uint32] = np.zeros((0, 0), np.uint32)
        self._squares: NDArray[np.uint32] = np.zeros((0, 0), np.uint32)
        self._changed: NDArray[np.uint32] = np.zeros((0, 0), np.uint32)

    def add(self, small: NDArray[np.uint8]) -> None:
        """Count one photo, a grey copy [h, w]; all are of the same size."""
        if self.photos == 0:
            self._first = small
            self._sum, self._squares, self._changed = (np.zeros(small.shape, np.uint32) for _ in range(3))
        self._sum += small
        self._squares += np.multiply(small, small, dtype=np.uint32)
        self._changed += np.maximum(small, self._first) - np.minimum(small, self._first) > CHANGED
        self.photos += 1

    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        """The sums so far [h, w], as ARRAYS names them."""
        return self._first, self._sum, self._squares, self._changed

    @classmethod
    def of(cls, photos: int, shape: tuple[int, int], arrays: Sequence[bytes]) -> "FrameChanges":
        """Continue from sums over some photos, as the bytes of `arrays`."""
        made = cls()
        made.photos = photos
        first, *sums = arrays
        made._first = np.frombuffer(first, np.uint8).reshape(shape)
        made._sum, made._squares, made._changed = (np.frombuffer(a, np.uint32).reshape(shape).copy() for a in sums)
        return made

    def unchanging(self) -> Mask | None:
        """Return where the frame never changes, or None where it does everywhere, or where too few photos tell."""
        if self.photos < FEWEST_PHOTOS:
            return None
        mean = self._sum / self.photos
        deviation = np.sqrt(np.maximum(self._squares / self.photos - mean**2, 0))
        usual = float(np.percentile(deviation, 75))
        if usual < LEAST_CHANGE:
            return None
        still = deviation <= np.clip(STILL_SHARE * usual, *STILL)
        if still.mean() < SMALLEST_SHARE or still.mean() > MOST_SHARE:
            return None
        changing = (deviation >= BESIDE_SHARE * usual) & (self._changed >= CHANGED_SHARE * self.photos)
        mask = _bounded(still, changing, mean)
        return mask if mask is not None and mask.mean() <= MOST_SHARE else None


def _bounded(still: Mask, changing: Mask, mean: NDArray[np.float64]) -> Mask | None:
    """Return the sharply bounded patches of `still`, enlarged by BORDER and without small holes; None without any."""
    from scipy import ndimage  # here, since it takes a fifth of a second and most photos do not need it

    edges = np.hypot(*np.gradient(mean)) >= INNER_EDGE
    labels, count = ndimage.label(still, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    chosen = np.argsort(-areas, kind="stable")[:MOST_PATCHES]
    mask = np.zeros_like(still)
    boxes = ndimage.find_objects(labels)
    margin = 2 * BORDER + 1
    for number in chosen[areas[chosen] >= SMALLEST_SHARE * still.size]:
        box = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in boxes[number])
        patch = labels[box] == number + 1
        near = ndimage.binary_dilation(patch, iterations=BORDER)
        ring = ndimage.binary_dilation(near, iterations=BORDER) & ~near & ~still[box]
        has_edges = (edges[box] & patch).sum() >= INNER_EDGE_SHARE * areas[number]
        if has_edges or (ring.any() and changing[box][ring].mean() >= BOUNDED_SHARE):
            mask[box] |= patch
    if not mask.any():
        return None
    mask = ndimage.binary_dilation(mask, iterations=BORDER)
    holes, count = ndimage.label(~mask)
    small = np.bincount(holes.ravel(), minlength=count + 1) <= LARGEST_HOLE_SHARE * mask.size
    return np.asarray(mask | small[holes], np.bool_)


def for_features(mask: Mask) -> Mask:
    """Return the mask enlarged by FEATURE_BORDER."""
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, iterations=FEATURE_BORDER), np.bool_)


def covers(mask: Mask, xy: NDArray[np.floating], width: int, height: int) -> NDArray[np.bool_]:
    """Return which positions [K, 2], in px of a photo of this size, are in the mask [K]."""
    rows, columns = mask.shape
    x = np.clip((xy[:, 0] * columns / width).astype(int), 0, columns - 1)
    y = np.clip((xy[:, 1] * rows / height).astype(int), 0, rows - 1)
    return np.asarray(mask[y, x])
