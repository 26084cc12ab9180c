"""A world as arrays that compiled kernels read: a map of the ground, primitives, and a grid that finds them.

The map and the grid are squares around the origin. Their size depends on the place; the kernels read it from the
arrays' shapes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo import place
from tasks.core.transforms import Float64

# Samples of the ground map are MAP_STEP metres apart; its channels are below.
MAP_STEP = 0.5
HEIGHT, SLOPE_X, SLOPE_Y, LANE, YARD, WATER, OPENNESS, FIELD, FIELD_NUMBER, LUSH, DRY, PAVED = range(12)
CELL_M = 2.0  # size of a cell of the grid over the same square that finds primitives
NOTHING = -1e9  # the top of an empty cell: finite, for kernels compiled with fast maths


class World(NamedTuple):
    """Everything that a ray can hit."""

    ground: NDArray[np.float32]  # [S, S, channels], row = y, column = x
    fields: Float64  # [F, 4] cos, sin of the rows' direction, row spacing, crop
    kinds: NDArray[np.int64]  # [P] shape
    materials: NDArray[np.int64]  # [P]
    shapes: Float64  # [P, 11] x, y, z, cos, sin of yaw, three half sizes, style, seed, top z
    cell_starts: NDArray[np.int64]  # [C² + 1] into cell_items, row = y
    cell_items: NDArray[np.int64]
    cell_tops: Float64  # [C, C] greatest height of the objects in the cell
    sun: Float64  # [3] unit vector


def map_axis(size_m: float) -> Float64:
    """Coordinates [S] of the samples of a map that is `size_m` wide, in metres."""
    samples = round(size_m / MAP_STEP)
    return np.asarray((np.arange(samples) - (samples - 1) / 2) * MAP_STEP)


def segment_distance(x: Float64, y: Float64, ax: float, ay: float, bx: float, by: float) -> Float64:
    """Distance in metres of points to a segment from a to b."""
    along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
    return np.asarray(np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))


def patches(size: int, wavelength_m: float, seed: int) -> Float64:
    """A random field [size, size] about 0, standard deviation 1/3: waves up to `wavelength_m`, shorter ones fainter."""
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal((size, size)))
    rows, columns = np.fft.fftfreq(size, MAP_STEP)[:, None], np.fft.rfftfreq(size, MAP_STEP)[None]
    field = np.fft.irfft2(white / (wavelength_m**-2 + rows**2 + columns**2) ** 0.8, (size, size))
    return np.asarray((field - field.mean()) / (3 * field.std()))


def openness(axis: Float64, shapes: Float64) -> Float64:
    """Share of the sky that the ground sees, 0..1: every primitive hides some of it from the ground around it.

    axis [S]: coordinates of the map, eastward and northward.
    """
    hidden = np.zeros((len(axis), len(axis)))
    for px, py, _, cos, sin, a, b, c, *_ in shapes:
        reach = 0.5 + 0.6 * c
        column = slice(*np.searchsorted(axis, [px - a - b - 2 * reach, px + a + b + 2 * reach]))
        row = slice(*np.searchsorted(axis, [py - a - b - 2 * reach, py + a + b + 2 * reach]))
        dx, dy = axis[None, column] - px, axis[row, None] - py
        outside = np.hypot(
            np.maximum(np.abs(cos * dx + sin * dy) - a, 0), np.maximum(np.abs(cos * dy - sin * dx) - b, 0)
        )
        hidden[row, column] += 0.55 * min(c, 1.0) * np.exp(-((outside / reach) ** 2) * 2)
    return np.asarray(1 / (1 + hidden))


def object_grid(
    kinds: NDArray[np.int64], shapes: Float64, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float64]:
    """Lists of the primitives that touch each of cells² cells: [cells² + 1] starts, the items, and the cells' tops."""
    touching: list[list[int]] = [[] for _ in range(cells * cells)]
    tops = np.full((cells, cells), NOTHING)
    for index, (x, y, _, cos, sin, a, b, _, _, _, top) in enumerate(shapes):
        hull = 1.1 if kinds[index] in (place.CROWN, place.CONIFER) else 1.0  # leaves extend beyond their half sizes
        reach_x, reach_y = hull * (abs(cos) * a + abs(sin) * b), hull * (abs(sin) * a + abs(cos) * b)
        first_column, last_column = (int((v + cells * CELL_M / 2) // CELL_M) for v in (x - reach_x, x + reach_x))
        first_row, last_row = (int((v + cells * CELL_M / 2) // CELL_M) for v in (y - reach_y, y + reach_y))
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                touching[row * cells + column].append(index)
                tops[row, column] = max(tops[row, column], top)
    starts = np.concatenate([[0], np.cumsum([len(items) for items in touching])])
    return starts.astype(np.int64), np.array([item for items in touching for item in items], np.int64), tops
