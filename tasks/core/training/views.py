"""Photos for training: their sizes, where they are kept, the order of steps, and exposure.

Sizes. A photo is kept as uint8, at full size and halved several times by averaging areas.

Exposure. Cameras, above all those of drones, set exposure and white balance for every photo. A gain for each photo and
channel multiplies the render before it is compared with the photo. It follows the median over pixels of the ratio of
photo and render: unfilled holes and blur hardly move a median. Two rules keep gains from absorbing brightness that
belongs to the scene. Their geometric mean over photos is 1. And each is drawn towards 1 by IGNORED: where only one
photo shows a place, its gain and the place's colour could otherwise drift apart for ever.

Gains trained by gradient together with the colours, and ratios of mean colours, were tried first: on captures of
constant exposure they cost 1 and 3 dB on held-out photos.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.scene import Camera, Scene
from tasks.core.training.photo_file import Photo
from tasks.core.training.schedule import MAX_HALVINGS, SMALLEST_SIDE_PX

Mask = NDArray[np.bool_]

CHANNELS = 3

# Exposure
FOLLOWED_SHARE = 0.2  # of the way to the latest ratio, because single ratios are noisy
IGNORED = 0.06  # of a ratio's logarithm: cameras' steps are a third of a stop, 0.23; less is due to the scene
MAX_LOG_GAIN = 1.4  # two stops of exposure
DARKEST = 0.04  # of colours in 0..1: ratios of darker pixels are noise
FEWEST_PIXELS = 50


@dataclass(frozen=True)
class View:
    """One photo and its camera; entry k of both lists has k times halved sides."""

    cameras: tuple[Camera, ...]
    photos: Sequence[Photo]  # [H, W, 3] each; a `StoredPhoto` reads them from the disk
    hidden: Sequence[Mask] = ()  # [H, W] each, of pixels that show no place; none where all pixels count
    whole: tuple[int, int] | None = None  # width and height in px of the photo of which this is a part

    def hidden_at(self, level: int) -> Mask | None:
        """The mask of what shows no place at this level, which neither trains nor is measured."""
        return self.hidden[level] if self.hidden else None

    @property
    def shown(self) -> Mask | None:
        """The pixels [H, W] of the largest photo that count; None where all do."""
        return ~self.hidden[0] if self.hidden else None

    @property
    def most_halvings(self) -> int:
        """The number of halvings after which the photo is still at least as large as SMALLEST_SIDE_PX."""
        size = self.whole or (self.cameras[0].width, self.cameras[0].height)
        return int(math.log2(max(min(size) / SMALLEST_SIDE_PX, 1)))


def level_sizes(camera: Camera, max_image_size: int) -> list[tuple[int, int]]:
    """Width and height of a photo at training size, and of each of its halvings."""
    width, height = camera.width, camera.height
    longer = max(width, height)
    if longer > max_image_size:
        width, height = (max(1, round(side * max_image_size / longer)) for side in (width, height))
    sizes = [(width, height)]
    for _ in range(MAX_HALVINGS):
        width, height = max(1, width // 2), max(1, height // 2)
        sizes.append((width, height))
    return sizes


def in_memory(levels: Iterable[Photo]) -> tuple[Photo, ...]:
    """The sizes of a photo in arrays of their own, writeable because the kernels are compiled for that."""
    return tuple(np.array(pixels) for pixels in levels)


@dataclass(frozen=True)
class Squares:
    """A part of a photo, as a mask of the squares into which it is divided, `per_side` along the longer side."""

    counted: Mask  # [rows, columns] of the squares that count
    per_side: int

    def rectangle(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in px of the smallest part of a photo that contains all squares that count.

        It can be halved as often as the photo, and no side is shorter than SMALLEST_SIDE_PX if the photo's is not.
        """
        side = max(width, height) / self.per_side
        bounds = []
        for length, counted in ((width, self.counted.any(axis=0)), (height, self.counted.any(axis=1))):
            found = np.flatnonzero(counted)
            begin, end = (found[0] * side, (found[-1] + 1) * side) if len(found) else (0.0, 0.0)
            lacking = max(SMALLEST_SIDE_PX - (end - begin), 0)
            begin = max(min(begin - lacking / 2, length - SMALLEST_SIDE_PX), 0)
            end = min(max(end + lacking / 2, begin + SMALLEST_SIDE_PX), length)
            unit = 2**MAX_HALVINGS
            bounds.append((int(begin) // unit * unit, min(-(-int(np.ceil(end)) // unit) * unit, length)))
        (left, right), (top, bottom) = bounds
        return left, top, right, bottom

    def hidden(self, width: int, height: int, rectangle: tuple[int, int, int, int]) -> Mask:
        """The pixels that do not count, in a rectangle of a photo of this size."""
        left, top, right, bottom = rectangle
        side = max(width, height) / self.per_side
        rows, columns = self.counted.shape
        row_of = np.minimum(((np.arange(top, bottom) + 0.5) / side).astype(int), rows - 1)
        column_of = np.minimum(((np.arange(left, right) + 0.5) / side).astype(int), columns - 1)
        return np.asarray(~self.counted[row_of[:, None], column_of])


class HiddenBySquares(Sequence[Mask]):
    """Masks of a part of a photo by level, made when they are asked for: squares need few bytes, and pixels many."""

    def __init__(
        self,
        squares: Squares,
        sizes: Sequence[tuple[int, int]],
        rectangles: Sequence[tuple[int, int, int, int]],
        more: Sequence[Mask],
    ) -> None:
        """Sizes and rectangles are in px by level; `more`: masks of the whole photo by level, or none."""
        self._squares, self._sizes, self._rectangles, self._more = squares, sizes, rectangles, more

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, level: int) -> Mask: ...
    @overload
    def __getitem__(self, level: slice) -> list[Mask]: ...
    def __getitem__(self, level: int | slice) -> Mask | list[Mask]:
        if isinstance(level, slice):
            return [self[each] for each in range(*level.indices(len(self)))]
        hidden = self._squares.hidden(*self._sizes[level], self._rectangles[level])
        if self._more:
            left, top, right, bottom = self._rectangles[level]
            hidden |= self._more[level][top:bottom, left:right]
        return hidden


MaskLevels = dict[tuple[int, tuple[int, int]], tuple[Mask, ...]]  # by id of the scene's mask and size of the photo


def load_view(
    scene: Scene,
    camera: Camera,
    max_image_size: int,
    stored: Callable[[Iterable[Photo]], Sequence[Photo]] = in_memory,
    masks: MaskLevels | None = None,
    part: Squares | None = None,
) -> View:
    """Read a photo, make it no larger than `max_image_size` px on its longer side, and halve it.

    `stored` takes the pixels of all levels and returns what to keep. Views that get the same `masks` share those of
    what shows no place. With `part` the view is the part of the photo around these squares, and all else is hidden.
    """
    level = Image.fromarray(scene.image(camera))
    sizes = level_sizes(camera, max_image_size)
    rectangles = rectangles_of(sizes, part)
    photos = []
    for size, (left, top, right, bottom) in zip(sizes, rectangles, strict=True):
        level = level if size == level.size else level.resize(size, Image.Resampling.BOX)
        photos.append(np.asarray(level)[top:bottom, left:right])
    mask = scene.hidden.get(camera.name)
    hidden: tuple[Mask, ...] = ()
    if mask is not None:
        masks = {} if masks is None else masks
        key = id(mask), sizes[0]
        if key not in masks:
            masks[key] = tuple(_hidden_at(mask, size) for size in sizes)
        hidden = masks[key]
    if part is None:
        return View(tuple(camera.resized(*size) for size in sizes), stored(photos), hidden)
    cameras = tuple(
        camera.resized(*size).cropped(left, top, right - left, bottom - top)
        for size, (left, top, right, bottom) in zip(sizes, rectangles, strict=True)
    )
    return View(cameras, stored(photos), HiddenBySquares(part, sizes, rectangles, hidden), whole=sizes[0])


def rectangles_of(sizes: Sequence[tuple[int, int]], part: Squares | None) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom in px of a part of a photo at each of its sizes; of all of it without a part."""
    if part is None:
        return [(0, 0, *size) for size in sizes]
    width, height = sizes[0]
    left, top, right, bottom = part.rectangle(width, height)
    return [
        (
            left >> level,
            top >> level,
            at_level[0] if right == width else right >> level,
            at_level[1] if bottom == height else bottom >> level,
        )
        for level, at_level in enumerate(sizes)
    ]


def _hidden_at(mask: Mask, size: tuple[int, int]) -> Mask:
    """The pixels of a smaller photo (width, height) that show any of the mask's."""
    whole = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.array(whole.resize(size, Image.Resampling.BOX)) > 0


class EndlessShuffle:
    """Indices 0..count-1 in a new random order every round, for ever."""

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        self.round: NDArray[np.int64] = np.arange(count)  # the present order [count]
        self._given = count  # number of indices returned in the present round
        self._generator = generator

    def next(self) -> int:
        """The next index."""
        if self._given == len(self.round):
            self.round, self._given = self._generator.permutation(len(self.round)), 0
        self._given += 1
        return int(self.round[self._given - 1])

    def upcoming(self, count: int) -> list[int]:
        """The next indices, at most `count`, up to the end of the next round; this changes nothing."""
        coming: list[int] = self.round[self._given : self._given + count].tolist()
        if len(coming) < count:
            coming += copy.deepcopy(self._generator).permutation(len(self.round))[: count - len(coming)].tolist()
        return coming

    def numbers(self) -> dict[str, Any]:
        """The state without `round`, in values that JSON supports."""
        return {"given": self._given, "generator": self._generator.bit_generator.state}

    @classmethod
    def restored(cls, round_: NDArray[np.generic], numbers: dict[str, Any]) -> "EndlessShuffle":
        """A shuffle that continues from another's state. Raises ValueError or KeyError for anything else."""
        generator = np.random.default_rng()
        generator.bit_generator.state = numbers["generator"]
        shuffle = cls(len(round_), generator)
        shuffle.round, shuffle._given = round_.astype(np.int64), int(numbers["given"])
        return shuffle


def evenly_chosen(views: Sequence[View], count: int) -> list[View]:
    """At most `count` of the views, spread evenly."""
    if len(views) <= count:
        return list(views)
    return [views[round(index)] for index in np.linspace(0, len(views) - 1, count)]


def photo_bytes(
    cameras: Iterable[Camera],
    max_image_size: int,
    parts: Mapping[str, Squares] = MappingProxyType({}),
    *,
    smaller: bool = True,
) -> int:
    """Bytes of the cameras' photos at training size; of parts of those that have one. With their smaller copies."""
    total = 0
    for camera in cameras:
        levels = rectangles_of(level_sizes(camera, max_image_size), parts.get(camera.name))
        for left, top, right, bottom in levels if smaller else levels[:1]:
            total += CHANNELS * (right - left) * (bottom - top)
    return total


@dataclass
class Exposures:
    """Log gains of the training photos."""

    log_gains: NDArray[np.float32]  # [V, 3] by photo and channel
    gauge: int  # the geometric mean of so many first gains is 1: of the photos in training from the start

    @classmethod
    def neutral(cls, photos: int) -> "Exposures":
        """All gains 1."""
        return cls(np.zeros((photos, 3), np.float32), photos)

    def gain(self, index: int) -> NDArray[np.float32]:
        """The factor [3] for the render of this photo's view."""
        gain: NDArray[np.float32] = np.exp(self.log_gains[index])
        return gain

    def with_more(self, photos: int) -> "Exposures":
        """These exposures, followed by `photos` more with gains of 1; the present ones do not change."""
        return Exposures(np.concatenate([self.log_gains, np.zeros((photos, 3), np.float32)]), self.gauge)

    def update(
        self,
        index: int,
        photo: NDArray[np.uint8],
        render: NDArray[np.float32],
        share: float = FOLLOWED_SHARE,
        hidden: Mask | None = None,
    ) -> None:
        """Move a photo's gain by `share` towards the ratio of its pixels to the render's.

        Args:
            index: number of the photo.
            photo: uint8 [h, w, 3], 255 is 1.
            render: [h, w, 3].
            share: of the way to the ratio, 0..1.
            hidden: [h, w], pixels that do not count.
        """
        seen = photo / np.float32(255)
        usable = ((seen > DARKEST) & (render > DARKEST) & (seen < 1)).all(axis=2)
        if hidden is not None:
            usable &= ~hidden
        if usable.sum() < FEWEST_PIXELS:
            return
        ratio = np.median(np.log(seen[usable] / render[usable]), axis=0)
        wanted = np.sign(ratio) * np.maximum(np.abs(ratio) - IGNORED, 0)
        self.log_gains[index] += share * (wanted - self.log_gains[index])
        np.clip(self.log_gains, -MAX_LOG_GAIN, MAX_LOG_GAIN, out=self.log_gains)
        self.log_gains -= self.log_gains[: self.gauge].mean(axis=0)
