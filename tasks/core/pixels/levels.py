"""Grey of more than 8 bits, as radiometric and multispectral cameras write it, in 8 bits: one range for a whole set.

A range for each photo would show one temperature in as many greys as there are photos. A set's range comes from samples
of all its photos, so it does not depend on their order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # grey of more than 8 bits
FULL_LEVELS = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16))  # white of cameras' and scanners' levels
FULL_FLOATS = (1.0, 255.0, 65535.0)
# Of a full range, photographs use at least so much; less is a measured quantity, as temperatures are.
USED_SHARE, USED_SHARE_OF_FLOATS = 0.25, 0.5
DARK_SHARE, BRIGHT_SHARE = 0.001, 0.999  # of the set's pixels below black and white of a measured quantity
QUANTILES = 1001  # of each photo
SAMPLED_PIXELS = 1 << 20  # of each photo, at most about
STRIP_PIXELS = 1 << 18  # as many are looked at at once: what each thread works with is not in the photos' budget


@dataclass(frozen=True)
class LevelSample:
    """The levels of one photo."""

    mode: str  # of the picture
    pixels: int
    lowest: float
    highest: float
    quantiles: NDArray[np.float64]  # [QUANTILES]


@dataclass(frozen=True)
class Levels:
    """The levels that become black and white."""

    black: float
    white: float

    def __str__(self) -> str:
        return (
            f"{self.black:,.4g} to {self.white:,.4g}" if self.white < 10 else f"{self.black:,.0f} to {self.white:,.0f}"
        )


def strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in pieces from top to bottom, each with its first row."""
    rows = max(STRIP_PIXELS // picture.width, 1)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def sample_levels(picture: Image.Image) -> LevelSample:
    """Sample a decoded picture of one of DEEP_MODES."""
    step = max(int((picture.width * picture.height / SAMPLED_PIXELS) ** 0.5), 1)
    parts: list[NDArray[np.float32]] = []
    lowest, highest = np.inf, -np.inf
    for top, strip in strips(picture):
        values = _values(strip)
        finite = values[np.isfinite(values)]
        lowest = min(lowest, float(finite.min(initial=np.inf)))
        highest = max(highest, float(finite.max(initial=-np.inf)))
        rows = values[-top % step :: step, ::step]
        parts.append(rows[np.isfinite(rows)])
    known = np.concatenate(parts)
    if not known.size:  # none is a number
        known, lowest, highest = np.zeros(1, np.float32), 0.0, 0.0
    quantiles = np.quantile(known.astype(np.float64), np.linspace(0, 1, QUANTILES))
    return LevelSample(picture.mode, picture.width * picture.height, lowest, highest, quantiles)


def common_levels(samples: Iterable[LevelSample]) -> Levels:
    """Return the range of photos of one camera, at least one.

    Photographs keep their exposure: black is 0 and white the least full range of their bits that holds them all. A
    measured quantity uses a small part of such a range, and is stretched from its 0.1st to its 99.9th percentile.
    """
    found = sorted(samples, key=lambda sample: (sample.lowest, sample.highest, sample.pixels))
    values = np.concatenate([sample.quantiles for sample in found])
    weights = np.concatenate([np.full(QUANTILES, float(sample.pixels)) for sample in found])
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weights[order]) / weights.sum()
    dark, bright = (
        float(values[order][min(int(np.searchsorted(shares, share)), len(values) - 1)])
        for share in (DARK_SHARE, BRIGHT_SHARE)
    )
    lowest, highest = min(sample.lowest for sample in found), max(sample.highest for sample in found)
    floats = any(sample.mode == "F" for sample in found)
    full = next((top for top in (FULL_FLOATS if floats else FULL_LEVELS) if highest <= top), None)
    used = USED_SHARE_OF_FLOATS if floats else USED_SHARE
    if full is not None and lowest >= 0 and bright - dark >= used * full:
        return Levels(0.0, full)
    return Levels(dark, bright) if bright > dark else Levels(lowest, max(highest, lowest + 1e-12))


def eight_bit(picture: Image.Image, levels: Levels) -> Image.Image:
    """Return a picture of one of DEEP_MODES in the mode L; values that are not numbers are black."""
    scaled = Image.new("L", picture.size)
    black, span = np.float32(levels.black), np.float32(levels.white - levels.black)
    for top, strip in strips(picture):
        values = np.nan_to_num(_values(strip), nan=levels.black, posinf=levels.black, neginf=levels.black)
        level = (np.clip((values - black) / span, 0, 1) * 255).round().astype(np.uint8)
        scaled.paste(Image.fromarray(level), (0, top))
    return scaled


def _values(strip: Image.Image) -> NDArray[np.float32]:
    return np.asarray(strip, dtype=np.float32)
