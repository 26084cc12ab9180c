"""A decoded picture of any kind as a plain one: 8 bits, sRGB, and nothing transparent.

Transparent pixels become black, which is the background that training assumes. Their colours are left
over from editing and were never meant to be visible.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from tasks.core.image_file import ImageError
from tasks.core.pixels.levels import (
    DEEP_MODES,
    Levels,
    common_levels,
    eight_bit,
    eight_bit_colour,
    is_deep_colour,
    lower_bytes,
    sample_levels,
    strips,
)
from tasks.core.pixels.profiles import Colours, find_colours, in_srgb

ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
OF_SOURCE = ("icc_profile", "nclx_profile", "gamma", "chromaticity", "srgb", "transparency", "background")
NAMED_FILES = 3


@dataclass(frozen=True)
class Kind:
    """The kind of an image's pixels, by its header."""

    mode: str  # Pillow's
    alpha: bool  # whether it may have transparent pixels
    colours: Colours
    deep_colour: bool = False  # of 16 bits for red, green and blue

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits, which needs the set's Levels."""
        return self.mode in DEEP_MODES or self.deep_colour

    def at(self, levels: Levels | None) -> "Kind":
        """The kind where the set's levels are known: all of 16 bits in colour are what Pillow decodes."""
        return replace(self, deep_colour=self.deep_colour and not (levels and levels.whole))

    @property
    def plain(self) -> bool:
        """Whether its levels may be read as they are."""
        return not (self.deep or self.alpha or self.mode == "CMYK" or self.colours.profile is not None)


def kind_of(image: Image.Image) -> Kind:
    """Return the kind of an opened image; nothing is decoded."""
    deep = image.mode in DEEP_MODES
    alpha = not deep and (image.mode in ALPHA_MODES or "transparency" in image.info)
    return Kind(image.mode, alpha, find_colours(image), is_deep_colour(image))


def plain(
    picture: Image.Image, kind: Kind, levels: Levels | None = None, again: Callable[[], Image.Image] | None = None
) -> tuple[Image.Image, bool]:
    """Return a decoded picture in the mode L or RGB, and whether some of its pixels were transparent.

    The given picture may change. At no time is there more than the picture and one copy of it. `levels` are those of
    the set, for a deep picture; without them it has a range of its own. `again` opens the file once more, for 16-bit
    colour.

    Raises ImageError for colours that cannot be converted, and Pillow's errors.
    """
    transparent = False
    if kind.deep_colour and again is not None:
        picture.load()
        levels = levels or common_levels([sample_levels(picture)])
        if not levels.whole:
            picture = eight_bit_colour(picture, lower_bytes(again()), levels)
    if picture.mode in DEEP_MODES:
        picture = eight_bit(picture, levels or common_levels([sample_levels(picture)]))
    elif kind.alpha:
        picture = converted(picture, "LA" if picture.mode in ("LA", "La") else "RGBA")
    elif picture.mode not in ("L", "RGB") and not (picture.mode == "CMYK" and kind.colours.profile is not None):
        picture = converted(picture, "L" if picture.mode == "1" else "RGB")
    picture.load()
    if picture.readonly:  # a file that is mapped into memory
        picture = picture.copy()
    picture = in_srgb(picture, kind.colours)
    if kind.alpha:
        transparent = picture.getchannel("A").getextrema()[0] != 255
        picture = _over_black(picture)
    for name in OF_SOURCE:  # they would be stored with the picture again
        picture.info.pop(name, None)
    return picture, transparent


def converted(picture: Image.Image, mode: str) -> Image.Image:
    """Return the picture in another mode. Raises ImageError if Pillow cannot convert its colours."""
    if picture.mode == mode:
        return picture
    try:
        if picture.mode == "LAB":  # Pillow makes colours of it, but no brightness
            raise ValueError("Lab")
        return picture.convert(mode)
    except ValueError as error:
        raise ImageError(f"colours that cannot be converted ({error}); export it as JPEG") from None


def _over_black(picture: Image.Image) -> Image.Image:
    mode = "L" if picture.mode == "LA" else "RGB"
    flat = Image.new(mode, picture.size)
    for top, strip in strips(picture):
        flat.paste(strip.convert(mode), (0, top), strip.getchannel("A"))
    flat.info = {**picture.info}
    return flat


@dataclass(frozen=True)
class Change:
    """A file whose pixels were not plain."""

    name: str
    kind: Kind
    transparent: bool
    levels: Levels | None


def change_notes(changes: list[Change], what: str) -> list[str]:
    """Return sentences on what was done to files that were not plain, in the order of the files.

    what: what the files are, as "photo".
    """
    notes: list[str] = []
    spaces: dict[str, int] = {}
    for change in changes:
        if change.kind.colours.profile is not None:
            spaces[change.kind.colours.name] = spaces.get(change.kind.colours.name, 0) + 1
    for name, count in spaces.items():
        notes.append(f"{counted(count, what)} in colours of {name} {were(count)} converted to sRGB.")
    ranges: dict[str, int] = {}
    for change in changes:
        if change.levels is not None:
            ranges[str(change.levels)] = ranges.get(str(change.levels), 0) + 1
    for said, count in ranges.items():
        notes.append(
            f"{counted(count, what)} of more than 8 bits {were(count)} scaled alike: levels from {said} are "
            "black to white."
        )
    transparent = [change.name for change in changes if change.transparent]
    if transparent:
        notes.append(
            f"{counted(len(transparent), what)} {'has' if len(transparent) == 1 else 'have'} transparent pixels: they "
            "are black, as training takes the background, whatever colours are hidden there."
        )
    faulty = [change for change in changes if change.kind.colours.fault]
    if faulty:
        named = ", ".join(change.name for change in faulty[:NAMED_FILES])
        more = f" and {len(faulty) - NAMED_FILES} more" if len(faulty) > NAMED_FILES else ""
        notes.append(
            f"The colour profile of {counted(len(faulty), what)} cannot be used ({faulty[0].kind.colours.fault}), so "
            f"the levels are taken as sRGB: {named}{more}."
        )
    return notes


def counted(count: int, what: str) -> str:
    """A count with its noun: "1 photo", "1,200 photos"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def were(count: int) -> str:
    """The verb for a count."""
    return "was" if count == 1 else "were"
