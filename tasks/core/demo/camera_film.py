"""The simulated camera: a pinhole, exposed and developed into 8-bit sRGB, with depth and identity for tests.

First every pixel's centre is looked at. Where something visible changes between neighbours (object, face, shadow,
leaves before leaves) the pixel is looked at five times more, and the mean of the light is its value; elsewhere the
textures' own filtering keeps it smooth.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.demo.noise import kernel
from tasks.core.demo.rays import GROUND
from tasks.core.demo.shading import see
from tasks.core.demo.world import World
from tasks.core.kernel_cache import njit
from tasks.core.scene import Camera
from tasks.core.transforms import Float64, rigid_inverse

_SAMPLES = 5


@dataclass(frozen=True)
class Exposure:
    """What one release of the shutter gives."""

    rgb: NDArray[np.uint8]  # [height, width, 3] sRGB
    distance_m: NDArray[np.float32]  # [height, width] along the ray through the pixel's centre
    objects: NDArray[np.int32]  # [height, width] primitive, GROUND = -1


@kernel
def _srgb(linear: float) -> int:
    """8-bit sRGB with a soft shoulder, so that white walls keep their texture."""
    if linear > 0.6:
        linear = 0.6 + 0.4 * (1 - math.exp(-(linear - 0.6) / 0.4))
    value = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return int(min(max(value, 0.0), 1.0) * 255 + 0.5)


@kernel
def _is_edge(keys: NDArray[np.int32], distance: NDArray[np.float32], row: int, column: int, pixel: float) -> bool:
    """Whether something visible changes between a pixel and one of its four neighbours. pixel: its width at 1 m."""
    height, width = keys.shape
    for neighbour in range(4):
        r, c = row + (neighbour == 0) - (neighbour == 1), column + (neighbour == 2) - (neighbour == 3)
        if r < 0 or c < 0 or r >= height or c >= width:
            continue
        if keys[row, column] != keys[r, c]:
            return True
        leaves = (keys[row, column] & 15) >> 1 == 7
        if leaves and abs(distance[row, column] - distance[r, c]) > 7 * pixel * distance[row, column]:
            return True
    return False


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _expose(
    world: World, pose: Float64, lens: Float64, light: NDArray[np.float32], distance: NDArray[np.float32],
    objects: NDArray[np.int32], keys: NDArray[np.int32], rgb: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Both passes over an image; pose [3, 4] is world_from_cam, lens fx fy cx cy."""
    height, width = keys.shape
    for samples in (1, _SAMPLES):  # one call of `see`: it is long, and compiled where it is called
        for row in range(height):
            for column in range(width):
                if samples > 1 and not _is_edge(keys, distance, row, column, 1 / lens[0]):
                    continue
                red, green, blue = 0.0, 0.0, 0.0
                for sample in range(samples):  # a rank-1 lattice: five different rows and columns
                    x = (column + (sample + 0.5) / samples - lens[2]) / lens[0]
                    y = (row + (sample * 2 % samples + 0.5) / samples - lens[3]) / lens[1]
                    length = math.sqrt(x * x + y * y + 1)
                    dx = (pose[0, 0] * x + pose[0, 1] * y + pose[0, 2]) / length
                    dy = (pose[1, 0] * x + pose[1, 1] * y + pose[1, 2]) / length
                    dz = (pose[2, 0] * x + pose[2, 1] * y + pose[2, 2]) / length
                    pixel = 1 / (lens[0] * length)
                    seen, t, index, key = see(world, pose[0, 3], pose[1, 3], pose[2, 3], dx, dy, dz, pixel)
                    red, green, blue = red + seen[0], green + seen[1], blue + seen[2]
                    if samples == 1:
                        distance[row, column], objects[row, column], keys[row, column] = t, index, key
                light[row, column, 0] = red / samples
                light[row, column, 1] = green / samples
                light[row, column, 2] = blue / samples
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                rgb[row, column, channel] = _srgb(light[row, column, channel])


def expose(world: World, camera: Camera) -> Exposure:
    """Photograph the place. The same camera gives the same bytes, whatever the number of threads."""
    height, width = camera.height, camera.width
    pose = np.ascontiguousarray(rigid_inverse(camera.cam_from_world)[:3])
    lens = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    light = np.empty((height, width, 3), np.float32)
    distance = np.empty((height, width), np.float32)
    objects, keys = np.full((height, width), GROUND, np.int32), np.empty((height, width), np.int32)
    rgb = np.empty((height, width, 3), np.uint8)
    _expose(world, pose, lens, light, distance, objects, keys, rgb)
    return Exposure(rgb, distance, objects)
