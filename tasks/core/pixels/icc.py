"""Write ICC profiles of RGB colour spaces that a file names without having their profile.

A profile has three primaries, adapted to the white of ICC's connection space (D50), and a curve from levels to light:
ICC.1:2010, section 8.4.2 (matrix profiles), 10.5 (curves) and annex E (Bradford's adaptation).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from tasks.core.transforms import Float64

D50 = np.array([0.9642, 1.0, 0.8249])  # X, Y, Z of the connection space
D65_XY = (0.3127, 0.3290)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
CURVE_ENTRIES = 1024

REC709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # chromaticities x, y of red, green and blue; also sRGB's
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
REC2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
Curve = Callable[[Float64], Float64]  # light of levels, both 0..1


def srgb_curve(levels: Float64) -> Float64:
    """Return the light of sRGB's levels: IEC 61966-2-1."""
    return np.asarray(np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4))


def pq_curve(levels: Float64) -> Float64:
    """Return the light of levels in SMPTE ST 2084 (PQ): 1 from the white of ITU-R BT.2408 on, 203 cd/m²."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = levels ** (1 / m2)
    light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1) * 10_000
    return np.asarray(np.minimum(light / 203, 1.0))


def hlg_curve(levels: Float64) -> Float64:
    """Return the light of levels in ARIB STD-B67 (HLG): 1 from the white of ITU-R BT.2408 on, a level of 0.75."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(levels <= 0.5, levels**2 / 3, (np.exp((levels - c) / a) + b) / 12)
    white = (np.exp((0.75 - c) / a) + b) / 12
    return np.asarray(np.minimum(light / white, 1.0))


def gamma_curve(gamma: float) -> Curve:
    """Return a curve that is a power."""
    return lambda levels: np.asarray(levels**gamma)


@dataclass(frozen=True)
class ColourSpace:
    """An RGB colour space and its ICC profile."""

    name: str
    profile: bytes


def colour_space(
    name: str, primaries: Chromaticities, curve: Curve, white: tuple[float, float] = D65_XY
) -> ColourSpace:
    """Return a colour space by its chromaticities x, y and its curve.

    Raises ValueError or ZeroDivisionError for chromaticities that no space has.
    """
    to_xyz = _matrix(primaries, white)
    curve_tag = _curve_tag(curve)
    tags = [
        (b"desc", _description(name)),
        (b"cprt", b"text\0\0\0\0none\0"),
        (b"wtpt", _xyz(D50)),
        *((sign, _xyz(to_xyz[:, column])) for column, sign in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))),
        *((sign, curve_tag) for sign in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    table, body, begin = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for sign, data in tags:
        table += sign + struct.pack(">2I", begin + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(">I4sI12s", begin + len(body), b"none", 0x02400000, b"mntrRGB XYZ ")
    head += struct.pack(">6H4s28x", 2026, 1, 1, 0, 0, 0, b"acsp") + struct.pack(">I", 1) + _fixed(D50)
    return ColourSpace(name, head.ljust(128, b"\0") + table + body)


@cache
def display_p3() -> ColourSpace:
    """The colours of telephones' photos."""
    return colour_space("Display P3", P3, srgb_curve)


@cache
def adobe_rgb() -> ColourSpace:
    """Adobe RGB (1998), which cameras offer beside sRGB."""
    return colour_space("Adobe RGB (1998)", ADOBE, gamma_curve(563 / 256))


def _matrix(primaries: Chromaticities, white: tuple[float, float]) -> Float64:
    """Return X, Y, Z under D50 of full red, green and blue, as columns [3, 3]."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    white_xyz = np.array([white[0] / white[1], 1.0, (1 - white[0] - white[1]) / white[1]])
    shares = np.linalg.solve(columns, white_xyz)
    adaptation = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white_xyz)) @ BRADFORD
    matrix: Float64 = adaptation @ (columns * shares)
    if not (np.isfinite(matrix).all() and abs(matrix).max() < 10):
        raise ValueError("no chromaticities of a colour space")
    return matrix


def _fixed(values: Float64) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: Float64) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve_tag(curve: Curve) -> bytes:
    light = np.clip(curve(np.linspace(0, 1, CURVE_ENTRIES)), 0, 1)
    return b"curv\0\0\0\0" + struct.pack(">I", CURVE_ENTRIES) + np.rint(light * 65535).astype(">u2").tobytes()


def _description(name: str) -> bytes:
    text = name.encode("ascii", "replace") + b"\0"
    return b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
