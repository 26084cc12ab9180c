"""Convert numbers of Gaussians to bytes of pictures and back: everything that needs no codebook or palette.

The encoders take the order of the pixels and write into existing pixels [N, 4], so rows of Gaussians are read once, in
place. Numbers are rounded to the nearest multiple of a step; a step of 1 is the finest that the format allows.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Float32, Gaussians
from tasks.core.kernel_cache import njit
from tasks.core.sog.layout import QUAT_TAG
from tasks.core.transforms import Float64

THREADS = 2  # fixed, so that memory stays predictable; results do not depend on it

Result = TypeVar("Result")

UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]
Order = NDArray[np.uint32]

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # components that remain when component m is left out
_ALPHA_CLAMP = 1e-6  # opacities 0 and 1 have no logit; the reference reader's value
_STEPS = 65535
_COARSEST = 256  # finest steps in one: then the low byte carries no information


def in_chunks(rows: int, work: Callable[[slice], Result], chunks: int = 2 * THREADS) -> list[Result]:
    """Results of `work` for slices of `rows` rows, in order. Kernels and libwebp release the interpreter lock."""
    step = max(1, -(-rows // chunks))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, [slice(start, start + step) for start in range(0, rows, step)]))


@njit(cache=True, nogil=True)
def fill_log_positions(means: Float32, t: Float64) -> tuple[Float64, Float64]:
    """Fill in sign(x) ln(1 + |x|) of positions [N, 3], and return the least and greatest [3], [3].

    Steps are fine near the origin, where cameras look, and coarse far away.
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
    """Fill in the 16 bits of log positions [N, 3] between the bounds [3], [3], in multiples of `step`."""
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
    """Non-zero quaternions wxyz [N, 4] as pixels: the three smallest components, and the index of the largest.

    q and −q are the same rotation, so the largest component is made positive and can be computed from the others.
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
    """Unit quaternions wxyz [N, 4] from RGBA [N, 4]; pixels without a valid tag become the identity, as in viewers."""
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


def encode_positions(gaussians: Gaussians, share: float | None) -> tuple[UInt16, Float64, Float64]:
    """16 bits an axis [N, 3] of log positions, rounded to nearest, and the bounds [3], [3] that they are relative to.

    share: as `Precision.position_share`; if set, values are multiples of the greatest power of two that respects it.
    """
    n = len(gaussians)
    t, quantised = np.empty((n, 3)), np.empty((n, 3), np.uint16)
    bounds = in_chunks(n, lambda rows: fill_log_positions(gaussians.means[rows], t[rows]))
    mins, maxs = np.min([low for low, _ in bounds], axis=0), np.max([high for _, high in bounds], axis=0)
    step = 1 if share is None else _coarsest_step(gaussians, t, (maxs - mins).max() / _STEPS, share)
    in_chunks(n, lambda rows: quantise_positions(t[rows], mins, maxs, step, quantised[rows]))
    return quantised, mins, maxs


def _coarsest_step(gaussians: Gaussians, t: Float64, unit: float, share: float) -> int:
    """The greatest power of two whose rounding moves half of the Gaussians by less than `share` of their size.

    Size is the middle one of the three scales. dx = (1 + |x|) dt = e^|t| dt, and rounding moves by half a step at most.
    """
    every = max(1, len(t) // 100_000)
    size = np.exp(np.median(gaussians.log_scales[::every].astype(np.float64), axis=1))
    moved = 0.5 * unit * np.exp(np.abs(t[::every]).max(axis=1))
    wanted = share / max(float(np.median(moved / size)), 1e-12)
    return int(2 ** np.clip(np.floor(np.log2(max(wanted, 1.0))), 0, np.log2(_COARSEST)))


def _turns() -> tuple[Float64, NDArray[np.int64]]:
    """The 24 rotations of a cube: quaternions wxyz [24, 4], and the old axis that each new axis is [24, 3]."""
    candidates = np.array(list(itertools.product((1, 0, -1), repeat=4)), float)
    squares = (candidates**2).sum(axis=1)
    first = candidates[np.arange(len(candidates)), np.abs(candidates).argmax(axis=1)]
    # one, two or four components of equal size; q or -q, whichever has a positive first component
    chosen = candidates[np.isin(squares, (1, 2, 4)) & (first > 0)]
    turns = chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
    w, x, y, z = turns.T
    matrices = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return turns, np.abs(matrices).argmax(axis=0).T  # column j of a matrix is ± one old axis


@njit(cache=True, nogil=True)
def _turn_all(
    quats: Float32, scales: Float32, turns: Float64, axes: NDArray[np.int64], new_quats: Float32, new_scales: Float32
) -> None:
    for i in range(len(quats)):
        w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        best, greatest = 0, -1.0
        for turn in range(len(turns)):
            a, b, c, d = turns[turn]
            size = abs(w * a - x * b - y * c - z * d)  # |w| of the product
            if size > greatest + 1e-7:  # the first of equals
                best, greatest = turn, size
        a, b, c, d = turns[best]
        new_quats[i, 0] = w * a - x * b - y * c - z * d
        new_quats[i, 1] = w * b + x * a + y * d - z * c
        new_quats[i, 2] = w * c - x * d + y * a + z * b
        new_quats[i, 3] = w * d + x * c - y * b + z * a
        for axis in range(3):
            new_scales[i, axis] = scales[i, axes[best, axis]]


def with_least_rotation(gaussians: Gaussians) -> Gaussians:
    """The same ellipsoids, described with the smallest rotations."""
    turns, axes = _turns()
    quats, scales = np.empty_like(gaussians.quats), np.empty_like(gaussians.log_scales)
    _turn_all(gaussians.quats, gaussians.log_scales, turns, axes, quats, scales)
    return Gaussians(gaussians.means, quats, scales, gaussians.raw_opacities, gaussians.sh0, gaussians.shN)
