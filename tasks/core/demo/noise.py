"""Procedural texture kernels: value noise and edges, filtered to the size of a pixel.

Everything is anchored in the world, so that two photos of the same spot show the same detail. Everything finer than a
pixel's footprint fades to its mean, so that nothing flickers from one photo to the next.
"""

import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from tasks.core.kernel_cache import njit

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel of the demo.

    Divisions are not checked: no denominator here can be 0. Kernels release the interpreter lock, so several photos are
    taken at a time. Only the outermost kernel is cached, with all that it calls. The others are only called by kernels,
    so they have no wrappers that would make them callable from Python.
    """
    compiled = njit(  # type: ignore[call-overload]  # the last two options are missing in numba's stubs
        nogil=True, fastmath=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
    )
    return cast("Callable[P, R]", compiled(function))


# Odd 62-bit factors; products wrap around at 64 bits, which mixes the bits.
_I, _J, _SEED, _STIR = 0x1E3779B97F4A7C15, 0x2545F4914F6CDD1D, 0x3C6EF372FE94F82B, 0x14057B7EF767814F


@kernel
def _scatter(cell: int) -> float:
    cell = (cell ^ (cell >> 29)) * _STIR
    return float(((cell ^ (cell >> 32)) >> 8) & 0xFFFFFFFF) * 2.3283064365386963e-10


@kernel
def hash01(i: int, j: int, seed: int) -> float:
    """A pseudorandom value in [0, 1) for an integer cell."""
    return _scatter(i * _I + j * _J + seed * _SEED)


@kernel
def noise2(x: float, y: float, seed: int) -> float:
    """Value noise in [0, 1) with lattice constant 1."""
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    cell = i * _I + j * _J + seed * _SEED
    low = _scatter(cell) * (1 - u) + _scatter(cell + _I) * u
    high = _scatter(cell + _J) * (1 - u) + _scatter(cell + _I + _J) * u
    return low * (1 - v) + high * v


@kernel
def noise3(x: float, y: float, z: float, seed: int) -> float:
    """Value noise in [0, 1) in space, lattice constant 1."""
    k = math.floor(z)
    w = z - k
    w = w * w * (3 - 2 * w)
    layer = seed + 131 * int(k)
    return noise2(x, y, layer) * (1 - w) + noise2(x, y, layer + 131) * w


@kernel
def fractal2(
    x: float, y: float, wavelength_m: float, octaves: int, gain: float, footprint_m: float, seed: int
) -> float:
    """Octaves of value noise about 0. Wavelengths halve from `wavelength_m` on, and fade out below ~3 footprints."""
    total, amplitude = 0.0, 1.0
    for octave in range(octaves):
        fade = wavelength_m / footprint_m * 0.5 - 1.0  # 0 at two pixels a wave, 1 at four
        if fade <= 0:
            break
        total += amplitude * min(fade, 1.0) * (noise2(x / wavelength_m, y / wavelength_m, seed + octave) - 0.5)
        wavelength_m *= 0.5
        amplitude *= gain
    return 2 * total


@kernel
def ramp(low: float, high: float, value: float) -> float:
    """Smooth step from 0 at `low` to 1 at `high`."""
    x = min(max((value - low) / (high - low), 0.0), 1.0)
    return x * x * (3 - 2 * x)


@kernel
def band(value: float, half_width_m: float, footprint_m: float) -> float:
    """Share of a pixel that a band |value| < half_width covers: an antialiased line or rectangle side."""
    return min(max((half_width_m - abs(value)) / footprint_m + 0.5, 0.0), 1.0)


@kernel
def joint(value: float, period_m: float, width_m: float, footprint_m: float) -> float:
    """Share of a pixel covered by joints that repeat every `period_m`. Filtered: far away their mean remains."""
    inside = value - period_m * math.floor(value / period_m)
    distance = min(inside, period_m - inside)
    sharp = min(max((width_m / 2 - distance) / footprint_m + 0.5, 0.0), 1.0)
    known = ramp(1.5, 3.0, period_m / footprint_m)
    return sharp * known + (width_m / period_m) * (1 - known)


@kernel
def resolved(size_m: float, footprint_m: float) -> float:
    """1 for things of four pixels or more, 0 for two or less."""
    return min(max(size_m / footprint_m * 0.5 - 1.0, 0.0), 1.0)
