"""Pictures of more than 8 bits, as radiometric and multispectral cameras write them, in 8: one range for a whole set.

A range for each photo would show one temperature in as many greys as there are photos. A set's range comes from samples
of all its photos, so it does not depend on their order.

Pillow decodes 16-bit colour to its upper 8 bits. Of 12-bit data these are 16 levels, so the lower ones are decoded
as well where a set needs them.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # grey of more than 8 bits
FULL_LEVELS = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16))  # white of cameras' and scanners' levels
FULL_FLOATS = (1.0, 255.0, 65535.0)
# Of a full range, photographs use at least so much; less is a measured quantity, as temperatures are.
USED_SHARE, USED_SHARE_OF_FLOATS = 0.25, 0.5
DARK_SHARE, BRIGHT_SHARE = 0.001, 0.999  # of the set's pixels below black and white of a measured quantity
COLOUR = "RGB"  # as the mode of a sample
SWAPPED = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
QUANTILES = 1001  # of each photo
SAMPLED_PIXELS = 1 << 18  # of each photo, about: what a thread computes with them is not in the photos' budget
STRIP_PIXELS = 1 << 18  # as many are looked at at once: what each thread works with is not in the photos' budget


@dataclass(frozen=True)
class LevelSample:
    """The levels of one photo."""

    mode: str  # of the picture; COLOUR for 16-bit colour, of which only `highest` is known
    pixels: int
    lowest: float
    highest: float
    quantiles: NDArray[np.float64]  # [QUANTILES]


@dataclass(frozen=True)
class Levels:
    """The levels that become black and white."""

    black: float
    white: float

    @property
    def whole(self) -> bool:
        """Whether they are those of 16 bits."""
        return (self.black, self.white) == (0.0, FULL_LEVELS[-1])

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
    """Sample a decoded picture of one of DEEP_MODES, or of 16-bit colour, by its upper 8 bits."""
    if picture.mode not in DEEP_MODES:
        upper = max(band.getextrema()[1] for band in picture.split()[:3])
        assert isinstance(upper, int | float)
        return LevelSample(COLOUR, picture.width * picture.height, 0.0, 256.0 * upper + 255, np.zeros(QUANTILES))
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
    if found[0].mode == COLOUR:
        return Levels(0.0, next(top for top in FULL_LEVELS if highest <= top))
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


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an opened image has 16 bits of red, green and blue."""
    return image.mode in ("RGB", "RGBA") and _raw_mode(image)[-4:] in SWAPPED


def lower_bytes(image: Image.Image) -> Image.Image:
    """Decode the lower 8 bits of 16-bit colour from an opened image: bytes are read in the other order."""
    raw = _raw_mode(image)
    swapped = raw[:-4] + SWAPPED[raw[-4:]]
    if isinstance(image, ImageFile.ImageFile):
        image.tile = [
            tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped)
            for tile in image.tile
        ]
    image.load()
    return image


def eight_bit_colour(upper: Image.Image, lower: Image.Image, levels: Levels) -> Image.Image:
    """Return 16-bit colour, decoded in two parts of the mode RGB or RGBA, in 8 bits; the upper part is changed."""
    for (top, strip), (_, rest) in zip(strips(upper), strips(lower), strict=True):
        value = 256.0 * np.asarray(strip, np.float32) + np.asarray(rest, np.float32)
        level = (np.clip((value - levels.black) / (levels.white - levels.black), 0, 1) * 255).round().astype(np.uint8)
        if strip.mode == "RGBA":
            level[..., 3] = np.asarray(strip)[..., 3]
        upper.paste(Image.fromarray(level), (0, top))
    return upper


def _raw_mode(image: Image.Image) -> str:
    """How Pillow will read the pixels of an opened image; empty if there are none, or if that has no name."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = tiles[0].args if tiles else ""
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) else ""


def _values(strip: Image.Image) -> NDArray[np.float32]:
    return np.asarray(strip, dtype=np.float32)
