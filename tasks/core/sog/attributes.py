"""Numbers of Gaussians to bytes of pictures and back, everything that needs no codebook or palette."""

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Float32
from tasks.core.sog.layout import QUAT_TAG
from tasks.core.transforms import Float64

UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]

_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])  # components that stay when component m is left out
_ALPHA_CLAMP = 1e-6  # opacities 0 and 1 have no logit; as the reference reader


def log_positions(means: Float32) -> Float64:
    """sign(x) ln(1 + |x|) of positions [N, 3]: fine near the origin, where cameras look, coarse far away."""
    wide = means.astype(np.float64)
    return np.sign(wide) * np.log1p(np.abs(wide))


def encode_positions(t: Float64) -> tuple[UInt16, Float64, Float64]:
    """Log positions [N, 3] to 16 bits, rounded to nearest, and the bounds [3], [3] they are relative to."""
    mins, maxs = t.min(axis=0), t.max(axis=0)
    span = np.where(maxs > mins, maxs - mins, 1.0)
    return np.rint((t - mins) / span * 65535).astype(np.uint16), mins, maxs


def decode_positions(quantised: UInt16, mins: Float64, maxs: Float64) -> Float32:
    """Positions [N, 3] from 16 bits an axis."""
    t = mins + (maxs - mins) * (quantised / 65535.0)
    return (np.sign(t) * np.expm1(np.abs(t))).astype(np.float32)


def encode_quats(quats: Float32) -> UInt8:
    """Quaternions wxyz [N, 4], not zero, to RGBA [N, 4]: the three smallest components, and the index of the largest.

    q and −q are the same rotation, so the largest component is made positive and follows from the others.
    """
    unit = quats.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    largest = np.abs(unit).argmax(axis=1)
    rows = np.arange(len(unit))
    unit *= np.where(unit[rows, largest] < 0, -1.0, 1.0)[:, None]
    encoded = np.empty((len(unit), 4), np.uint8)
    rest = unit[rows[:, None], _OTHERS[largest]]  # [N, 3] within ±1/√2
    encoded[:, :3] = np.clip(np.rint(255 * (rest * np.sqrt(2) * 0.5 + 0.5)), 0, 255)
    encoded[:, 3] = QUAT_TAG + largest
    return encoded


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


def encode_opacities(raw_opacities: Float32) -> UInt8:
    """Logits [N] to sigmoid in 8 bits, rounded to nearest."""
    with np.errstate(over="ignore"):  # exp(+∞) gives opacity 0, which is right
        return np.rint(255 / (1 + np.exp(-raw_opacities.astype(np.float64)))).astype(np.uint8)


def decode_opacities(alpha: UInt8) -> Float32:
    """Logits [N] from 8 bits."""
    opacities = np.clip(alpha / 255.0, _ALPHA_CLAMP, 1 - _ALPHA_CLAMP)
    return np.log(opacities / (1 - opacities)).astype(np.float32)
