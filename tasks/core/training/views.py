"""Photos in memory as training takes them: uint8, at full size and halved several times by averaging areas."""

import math
from collections.abc import Sequence
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


def load_view(scene: Scene, camera: Camera, max_image_size: int) -> View:
    """Read a photo, make it no larger than `max_image_size` px on its longer side, and halve it."""
    full = Image.fromarray(scene.image(camera))
    longer = max(full.size)
    if longer > max_image_size:
        full = _area_averaged(full, *(max(1, round(side * max_image_size / longer)) for side in full.size))
    levels = [full]
    for _ in range(MAX_HALVINGS):
        levels.append(_area_averaged(levels[-1], max(1, levels[-1].width // 2), max(1, levels[-1].height // 2)))
    return View(
        cameras=tuple(camera.resized(*level.size) for level in levels),
        photos=tuple(np.array(level) for level in levels),  # writeable, as the kernels are compiled for
    )


def _area_averaged(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BOX)


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
