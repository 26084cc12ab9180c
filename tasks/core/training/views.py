"""Photos as training takes them: uint8, at full size and halved several times by averaging areas."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.scene import Camera, Scene
from tasks.core.training.schedule import MAX_HALVINGS, SMALLEST_SIDE_PX

Photo = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """One photo and its camera; entry k of both lists has k times halved sides."""

    cameras: tuple[Camera, ...]
    photos: tuple[Photo, ...]  # [H, W, 3] each

    @property
    def most_halvings(self) -> int:
        """How often the photo can be halved and stay as large as SMALLEST_SIDE_PX."""
        return int(math.log2(max(min(self.cameras[0].width, self.cameras[0].height) / SMALLEST_SIDE_PX, 1)))


def level_sizes(camera: Camera, max_image_size: int) -> list[tuple[int, int]]:
    """Width and height of a photo as it is trained on, and of each of its halvings."""
    width, height = camera.width, camera.height
    longer = max(width, height)
    if longer > max_image_size:
        width, height = (max(1, round(side * max_image_size / longer)) for side in (width, height))
    sizes = [(width, height)]
    for _ in range(MAX_HALVINGS):
        width, height = max(1, width // 2), max(1, height // 2)
        sizes.append((width, height))
    return sizes


def in_memory(pixels: Photo) -> Photo:
    """A photo [H, W, 3] in an array of its own, which is writeable, as the kernels are compiled for."""
    return np.array(pixels)


def load_view(scene: Scene, camera: Camera, max_image_size: int, stored: Callable[[Photo], Photo] = in_memory) -> View:
    """Read a photo, make it no larger than `max_image_size` px on its longer side, and halve it.

    `stored` takes the pixels of each level and returns the array that holds them from then on.
    """
    level = Image.fromarray(scene.image(camera))
    sizes = level_sizes(camera, max_image_size)
    photos = []
    for size in sizes:
        level = level if size == level.size else level.resize(size, Image.Resampling.BOX)
        photos.append(stored(np.asarray(level)))
    return View(tuple(camera.resized(*size) for size in sizes), tuple(photos))


class EndlessShuffle:
    """Indices 0..count-1 in a new random order every round, for ever."""

    def __init__(self, count: int, generator: np.random.Generator) -> None:
        self.round: NDArray[np.int64] = np.arange(count)  # the present order [count]
        self._given = count  # of the present round
        self._generator = generator

    def next(self) -> int:
        """The next index."""
        if self._given == len(self.round):
            self.round, self._given = self._generator.permutation(len(self.round)), 0
        self._given += 1
        return int(self.round[self._given - 1])

    def numbers(self) -> dict[str, Any]:
        """What, beside `round`, it takes to go on from here; JSON can hold it."""
        return {"given": self._given, "generator": self._generator.bit_generator.state}

    @classmethod
    def restored(cls, round_: NDArray[np.generic], numbers: dict[str, Any]) -> "EndlessShuffle":
        """One that goes on where another one was. Raises ValueError or KeyError for what is not of such a one."""
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
