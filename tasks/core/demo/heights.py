"""The true surface of a place as a raster: ground, water, roofs and treetops, as seen from straight above.

The ray caster of the photos looks down from so far away that its rays are nearly parallel: what is 20 m high appears
3 cm beside its place at most, and heights are exact to 4 mm.
"""

import itertools
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo.camera_film import expose
from tasks.core.demo.scenery import World
from tasks.core.errors import FormatError
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid

STEP_M = 0.5
BESIDE_M = 20.0  # of land around a town's extent
HAMLET_M = 120.0  # width of the raster of the hamlet
_TILE = 256  # samples
_EYE_M = 50_000.0


@dataclass(frozen=True)
class Heights:
    """Heights in metres above the origin of the true cameras."""

    heights_m: NDArray[np.float32]  # [R, C], row northward, column eastward
    origin_m: tuple[float, float]  # x, y of heights_m[0, 0]
    step_m: float

    def at(self, xs: Float64, ys: Float64) -> Float64:
        """Heights [N] at places [N], bilinear; NaN outside the raster."""
        u, v = (np.asarray(xs) - self.origin_m[0]) / self.step_m, (np.asarray(ys) - self.origin_m[1]) / self.step_m
        rows, columns = self.heights_m.shape
        inside = (u >= 0) & (v >= 0) & (u <= columns - 1) & (v <= rows - 1)
        i = np.clip(np.nan_to_num(u), 0, columns - 1.001).astype(int)
        j = np.clip(np.nan_to_num(v), 0, rows - 1.001).astype(int)
        s, t, z = u - i, v - j, self.heights_m
        low, high = z[j, i] * (1 - s) + z[j, i + 1] * s, z[j + 1, i] * (1 - s) + z[j + 1, i + 1] * s
        return np.where(inside, low * (1 - t) + high * t, np.nan)


def raster_width_m(extent_m: float) -> float:
    """Width of the square that is measured, around the origin."""
    return extent_m + 2 * BESIDE_M if extent_m else HAMLET_M


def surface_heights(world: World, width_m: float, each: Callable[..., Iterable[NDArray[np.float32]]] = map) -> Heights:
    """Measure a square around the origin. `each` is a `map`, so that an executor can share the work out."""
    tiles = math.ceil((width_m / STEP_M + 1) / _TILE)
    first = -width_m / 2
    corners = [first + number * _TILE * STEP_M for number in range(tiles)]
    measured: Iterator[NDArray[np.float32]] = iter(
        each(lambda corner: _tile(world, *corner), [(x, y) for y, x in itertools.product(corners, corners)])
    )
    rows = [np.concatenate([next(measured) for _ in corners], axis=1) for _ in corners]
    samples = round(width_m / STEP_M) + 1
    return Heights(np.concatenate(rows)[:samples, :samples], (first, first), STEP_M)


def _tile(world: World, x: float, y: float) -> NDArray[np.float32]:
    """Heights [TILE, TILE] of samples from (x, y) on."""
    middle = (_TILE - 1) / 2 * STEP_M
    eye = np.array([x + middle, y + middle, _EYE_M])
    downward = np.diag([1.0, -1.0, -1.0])  # columns eastward, rows southward
    focal = _EYE_M / STEP_M
    camera = Camera("", _TILE, _TILE, focal, focal, _TILE / 2, _TILE / 2, rigid(downward, -downward @ eye))
    distance = expose(world, camera).distance_m.astype(np.float64)
    across = (np.arange(_TILE) + 0.5 - _TILE / 2) / focal
    cosine = 1 / np.sqrt(1 + across[None] ** 2 + across[:, None] ** 2)
    return (_EYE_M - distance * cosine)[::-1].astype(np.float32)


def heights_path(photos: Path) -> Path:
    """The file of the true surface: next to the folder of photos."""
    return photos.parent / f"{photos.name}_heights.npz"


def save_heights(path: Path, heights: Heights) -> None:
    """Write heights_m [R, C], origin_m [2] and step_m as a compressed .npz; the same heights give the same bytes."""
    np.savez_compressed(path, heights_m=heights.heights_m, origin_m=heights.origin_m, step_m=heights.step_m)


def load_heights(path: Path) -> Heights:
    """Read what `save_heights` wrote.

    Raises:
        FormatError: the file is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays["origin_m"]
            return Heights(arrays["heights_m"], (float(x), float(y)), float(arrays["step_m"]))
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"{path.name} does not hold the heights of a demo flight ({error}); fly again to write it anew."
        ) from error
