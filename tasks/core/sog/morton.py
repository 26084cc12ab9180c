"""Neighbours in space become neighbours in the picture, which is what makes WebP small."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def _interleave(quantised: NDArray[np.uint16]) -> NDArray[np.uint64]:
    """Z-order codes of [N, 3] 16-bit coordinates; x is the least significant."""
    codes = np.empty(len(quantised), np.uint64)
    for i in range(len(quantised)):
        code = np.uint64(0)
        for axis in range(3):
            value = np.uint64(quantised[i, axis])
            for bit in range(16):
                code |= ((value >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
        codes[i] = code
    return codes


def morton_order(quantised: NDArray[np.uint16]) -> NDArray[np.intp]:
    """The order along a Z-order curve of 16-bit coordinates [N, 3]; equal positions keep their order."""
    return np.argsort(_interleave(quantised), kind="stable")
