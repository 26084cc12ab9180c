"""Numbers of Gaussians to bytes of pictures and back, everything that needs no codebook or palette.

The encoders take the order of the pixels and write into pixels [N, 4] that are there: rows of Gaussians are read once,
from where they lie. Numbers are rounded to the nearest multiple of a step; 1 is all that the format holds.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Float32
from tasks.core.kernel_cache import njit
from tasks.core.sog.layout import QUAT_TAG
from tasks.core.transforms import Float64

UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]
Order = NDArray[np.uint32]

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # components that stay when component m is left out
_ALPHA_CLAMP = 1e-6  # opacities 0 and 1 have no logit; as the reference reader


@njit(cache=True, nogil=True)
def fill_log_positions(means: Float32, t: Float64) -> tuple[Float64, Float64]:
    """Fill sign(x) ln(1 + |x|) of positions [N, 3], and return the least and greatest [3], [3].

    Fine near the origin, where cameras look, coarse far away.
    """
    mins, maxs = np.full(3, np.inf), np.full(3, -np.inf)
    for i in range(len(means)):
        for axis in range(3):
            x = np.float64(means[i, axis])
            value = np.log1p(x) if x >= 0 else -np.log1p(-x)
            t[i, axis] = value
            mins[axis] = min(mins[axis], value)
            maxs[axis] = max(maxs[axis], value)
    return mins, maxs


def log_positions(means: Float32) -> Float64:
    """sign(x) ln(1 + |x|) of positions [N, 3]."""
    t = np.empty(means.shape)
    fill_log_positions(means, t)
    return t


@njit(cache=True, nogil=True)
def quantise_positions(t: Float64, mins: Float64, maxs: Float64, step: int, quantised: UInt16) -> None:
    """Fill the 16 bits of log positions [N, 3] between the bounds [3], [3], in multiples of `step`."""
    for axis in range(3):
        span = maxs[axis] - mins[axis] if maxs[axis] > mins[axis] else 1.0
        for i in range(len(t)):
            value = step * np.rint((t[i, axis] - mins[axis]) / span * 65535 / step)
            quantised[i, axis] = np.uint16(min(value, 65535.0))


@njit(cache=True, nogil=True)
def split_positions(quantised: UInt16, order: Order, low: UInt8, high: UInt8) -> None:
    """Low and high bytes of 16-bit positions as opaque pixels [N, 4] each."""
    for i in range(len(order)):
        for axis in range(3):
            value = quantised[order[i], axis]
            low[i, axis] = value & 255
            high[i, axis] = value >> 8
        low[i, 3] = high[i, 3] = 255


def decode_positions(quantised: UInt16, mins: Float64, maxs: Float64) -> Float32:
    """Positions [N, 3] from 16 bits an axis."""
    t = mins + (maxs - mins) * (quantised / 65535.0)
    return (np.sign(t) * np.expm1(np.abs(t))).astype(np.float32)


@njit(cache=True, nogil=True)
def encode_quats(quats: Float32, order: Order, step: int, pixels: UInt8) -> None:
    """Quaternions wxyz [N, 4], not zero, as pixels: the three smallest components, and the index of the largest.

    q and −q are the same rotation, so the largest component is made positive and follows from the others.
    """
    for i in range(len(order)):
        row = order[i]
        largest, squares = 0, 0.0
        for component in range(4):
            value = np.float64(quats[row, component])
            squares += value * value
            if abs(value) > abs(quats[row, largest]):
                largest = component
        scale = np.sqrt(2) * 0.5 * 255 / np.sqrt(squares)
        if quats[row, largest] < 0:
            scale = -scale
        place = 0
        for component in range(4):
            if component != largest:
                value = step * np.rint((quats[row, component] * scale + 127.5) / step)
                pixels[i, place] = np.uint8(min(max(value, 0.0), 255.0))
                place += 1
        pixels[i, 3] = QUAT_TAG + largest


def decode_quats(encoded: UInt8) -> Float32:
    """Unit quaternions wxyz [N, 4] from RGBA [N, 4]; a pixel without a valid tag is the identity, as in viewers."""
    tag = encoded[:, 3].astype(np.intp) - QUAT_TAG
    valid = tag >= 0
    largest = np.where(valid, tag, 0)
    rest = (encoded[:, :3] / 255.0 - 0.5) * np.sqrt(2)
    quats = np.empty((len(encoded), 4))
    rows = np.arange(len(encoded))
    quats[rows[:, None], _OTHERS[largest]] = rest
    quats[rows, largest] = np.sqrt(np.maximum(0.0, 1.0 - (rest**2).sum(axis=1)))
    quats[~valid] = [1, 0, 0, 0]
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    return quats.astype(np.float32)


@njit(cache=True, nogil=True)
def encode_opacities(raw_opacities: Float32, order: Order, step: int, pixels: UInt8) -> None:
    """Logits [N] as sigmoid in the pixels' alpha."""
    for i in range(len(order)):
        opacity = 1 / (1 + np.exp(-np.float64(raw_opacities[order[i]])))
        pixels[i, 3] = np.uint8(min(step * np.rint(255 * opacity / step), 255.0))


def decode_opacities(alpha: UInt8) -> Float32:
    """Logits [N] from 8 bits."""
    opacities = np.clip(alpha / 255.0, _ALPHA_CLAMP, 1 - _ALPHA_CLAMP)
    return np.log(opacities / (1 - opacities)).astype(np.float32)
