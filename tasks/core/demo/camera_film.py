"""The simulated camera: a pinhole, exposed and developed into 8-bit sRGB, with depth and identity for tests.

First every pixel's centre is looked at. Where something visible changes between neighbours (object, face, shadow, leaves
before leaves) the pixel is looked at nine times more, and the mean of the light is its value; elsewhere the textures'
own filtering keeps it smooth.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from tasks.core.demo.rays import GROUND
from tasks.core.demo.shading import see
from tasks.core.demo.world import World
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid_inverse

_SAMPLES = 9


@dataclass(frozen=True)
class Exposure:
    """What one release of the shutter gives."""

    rgb: NDArray[np.uint8]  # [height, width, 3] sRGB
    distance_m: NDArray[np.float32]  # [height, width] along the ray through the pixel's centre
    objects: NDArray[np.int32]  # [height, width] primitive, GROUND = -1


@njit(cache=True)
def _srgb(linear: float) -> int:
    """8-bit sRGB with a soft shoulder, so that white walls keep their texture."""
    if linear > 0.6:
        linear = 0.6 + 0.4 * (1 - math.exp(-(linear - 0.6) / 0.4))
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return int(min(max(value, 0.0), 1.0) * 255 + 0.5)


@njit(cache=True)
def _look(world: World, pose: Float64, lens: Float64, px: float, py: float):  # type: ignore[no-untyped-def] # noqa: ANN202
    """`see` through a point of the image; pose [3, 4] is world_from_cam, lens fx fy cx cy."""
    x, y = (px - lens[2]) / lens[0], (py - lens[3]) / lens[1]
    length = math.sqrt(x * x + y * y + 1)
    x, y, z = x / length, y / length, 1 / length
    dx = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z
    dy = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z
    dz = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z
    return see(world, pose[0, 3], pose[1, 3], pose[2, 3], dx, dy, dz, 1 / (lens[0] * length))


@njit(parallel=True, cache=True)
def _centres(
    world: World, pose: Float64, lens: Float64, stride: int, light: NDArray[np.float32], distance: NDArray[np.float32],
    objects: NDArray[np.int32], keys: NDArray[np.int32],
) -> None:  # fmt: skip
    height, width = keys.shape
    for number in prange(height):
        row = number * stride % height  # far and near rows mixed: equal work for all threads
        for column in range(width):
            rgb, t, index, key = _look(world, pose, lens, column + 0.5, row + 0.5)
            light[row, column, 0], light[row, column, 1], light[row, column, 2] = rgb
            distance[row, column], objects[row, column], keys[row, column] = t, index, key


@njit(cache=True)
def _differ(keys: NDArray[np.int32], distance: NDArray[np.float32], row: int, column: int, r: int, c: int, pixel_m: float) -> bool:
    if r < 0 or c < 0 or r >= keys.shape[0] or c >= keys.shape[1]:
        return False
    if keys[row, column] != keys[r, c]:
        return True
    leaves = (keys[row, column] & 15) >> 1 == 7
    return leaves and abs(distance[row, column] - distance[r, c]) > 7 * pixel_m * distance[row, column]


@njit(parallel=True, cache=True)
def _develop(
    world: World, pose: Float64, lens: Float64, stride: int, light: NDArray[np.float32], distance: NDArray[np.float32],
    keys: NDArray[np.int32], rgb: NDArray[np.uint8],
) -> None:  # fmt: skip
    height, width = keys.shape
    for number in prange(height):
        row = number * stride % height
        for column in range(width):
            red, green, blue = light[row, column, 0], light[row, column, 1], light[row, column, 2]
            edge = False
            for neighbour in range(4):
                r, c = row + (neighbour == 0) - (neighbour == 1), column + (neighbour == 2) - (neighbour == 3)
                edge = edge or _differ(keys, distance, row, column, r, c, 1 / lens[0])
            if edge:
                red, green, blue = 0.0, 0.0, 0.0
                for sample in range(_SAMPLES):  # a rank-1 lattice: nine different rows and columns
                    px = column + (sample + 0.5) / _SAMPLES
                    py = row + (sample * 4 % _SAMPLES + 0.5) / _SAMPLES
                    seen, _, _, _ = _look(world, pose, lens, px, py)
                    red, green, blue = red + seen[0], green + seen[1], blue + seen[2]
                red, green, blue = red / _SAMPLES, green / _SAMPLES, blue / _SAMPLES
            rgb[row, column, 0], rgb[row, column, 1], rgb[row, column, 2] = _srgb(red), _srgb(green), _srgb(blue)


def expose(world: World, camera: Camera) -> Exposure:
    """Photograph the place. The same camera gives the same bytes, whatever the number of threads."""
    height, width = camera.height, camera.width
    pose = np.ascontiguousarray(rigid_inverse(camera.cam_from_world)[:3])
    lens = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    stride = next(s for s in range(max(1, round(0.618 * height)), 2 * height) if math.gcd(s, height) == 1)
    light = np.empty((height, width, 3), np.float32)
    distance = np.empty((height, width), np.float32)
    objects, keys = np.full((height, width), GROUND, np.int32), np.empty((height, width), np.int32)
    rgb = np.empty((height, width, 3), np.uint8)
    _centres(world, pose, lens, stride, light, distance, objects, keys)
    _develop(world, pose, lens, stride, light, distance, keys, rgb)
    return Exposure(rgb, distance, objects)
