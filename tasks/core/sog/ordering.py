"""Sort Gaussians so that neighbours in space are neighbours in the picture, which makes WebP small.

The order follows a Hilbert curve through the log positions. Pictures are about half a percent smaller than
with a Z-order curve. Readers do not depend on the order.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.core.kernel_cache import njit
from tasks.core.sog.attributes import in_chunks

_BITS = 16
_DIGIT_BITS = 16  # in one pass of the sort; three passes cover a code


def _steps() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The place on the curve and the state inside, for each of the curve's 24 states and each octant, [24, 8] each.

    Hamilton, "Compact Hilbert indices" (2006), https://cs.dal.ca/research/techreports/cs-2006-07: a state is the corner
    where the curve enters a cube and the axis along which it leaves.
    """
    gray = [place ^ place >> 1 for place in range(8)]
    entries = [0, *(gray[2 * ((place - 1) // 2)] for place in range(1, 8))]
    axes = [0, *((_trailing_ones(place if place % 2 else place - 1) % 3) for place in range(1, 8))]
    places, states = np.empty((24, 8), np.uint8), np.empty((24, 8), np.uint8)
    for corner in range(8):
        for axis in range(3):
            for octant in range(8):
                turned = octant ^ corner
                turned = (turned >> (axis + 1) | turned << (2 - axis)) & 7
                place = gray.index(turned)
                entry = (entries[place] << (axis + 1) | entries[place] >> (2 - axis)) & 7
                places[3 * corner + axis, octant] = place
                states[3 * corner + axis, octant] = 3 * (corner ^ entry) + (axis + axes[place] + 1) % 3
    return places, states


def _trailing_ones(value: int) -> int:
    return (value ^ (value + 1)).bit_length() - 1


_PLACES, _STATES = _steps()


@njit(cache=True, nogil=True)
def _hilbert_codes(
    quantised: NDArray[np.uint16], places: NDArray[np.uint8], states: NDArray[np.uint8], codes: NDArray[np.uint64]
) -> None:
    """Fill in the places of [N, 3] 16-bit coordinates on the Hilbert curve, three bits a level."""
    for i in range(len(quantised)):
        x, y, z = np.int64(quantised[i, 0]), np.int64(quantised[i, 1]), np.int64(quantised[i, 2])
        code, state = np.int64(0), np.int64(0)
        for bit in range(_BITS - 1, -1, -1):
            octant = (x >> bit & 1) | (y >> bit & 1) << 1 | (z >> bit & 1) << 2
            code = code << 3 | places[state, octant]
            state = np.int64(states[state, octant])
        codes[i] = code


@njit(cache=True, nogil=True)
def _stable_order(codes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The order that sorts 48-bit codes stably. A radix sort takes a third of the time of a comparison sort."""
    order = np.arange(len(codes)).astype(np.uint32)
    previous = np.empty_like(order)
    mask = (1 << _DIGIT_BITS) - 1
    for shift in range(0, 3 * _BITS, _DIGIT_BITS):
        order, previous = previous, order
        starts = np.zeros((1 << _DIGIT_BITS) + 1, np.int64)
        for i in range(len(codes)):
            starts[((codes[i] >> np.uint64(shift)) & np.uint64(mask)) + np.uint64(1)] += 1
        for digit in range(1 << _DIGIT_BITS):
            starts[digit + 1] += starts[digit]
        for i in range(len(codes)):
            source = previous[i]
            digit = (codes[source] >> np.uint64(shift)) & np.uint64(mask)
            order[starts[digit]] = source
            starts[digit] += 1
    return order


def spatial_order(quantised: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """The order of 16-bit coordinates [N, 3] along a Hilbert curve, N < 2³²; equal positions keep their order."""
    codes = np.empty(len(quantised), np.uint64)
    in_chunks(len(quantised), lambda rows: _hilbert_codes(quantised[rows], _PLACES, _STATES, codes[rows]))
    order: NDArray[np.uint32] = _stable_order(codes)
    return order
