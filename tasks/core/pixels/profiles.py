"""Colours as sRGB, from embedded ICC profiles and from colour spaces that a file names.

Everything after this takes levels as sRGB: training, pages and pictures. A photo of a telephone (Display P3) that is
read as sRGB is 13 % too pale.
"""

import io
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from tasks.core.image_file import MALFORMED
from tasks.core.pixels import icc
from tasks.core.pixels.levels import DEEP_MODES
from tasks.core.safe_names import printable

SAME_LEVELS = 4  # of 255: profiles of sRGB differ among one another by 1 to 3
GRID = 9  # levels of each channel at which profiles are compared
SHOWN_CHARACTERS = 60  # of a profile's name
UNCALIBRATED_ADOBE = 2  # as EXIF's colour space: not in the standard, but written for Adobe RGB
INTEROPERABILITY_INDEX = 1  # a tag of EXIF
WITH_EXIF = ("JPEG", "MPO", "TIFF", "HEIF", "WEBP", "AVIF")  # a PNG may have it behind its pixels
GREY_MODES = ("1", "L", "LA", *DEEP_MODES)
# ITU-T H.273, tables 2 and 3
NCLX_PRIMARIES: dict[int, tuple[str, icc.Chromaticities]] = {
    1: ("Rec. 709", icc.REC709),
    9: ("Rec. 2020", icc.REC2020),
    12: ("Display P3", icc.P3),
}
NCLX_CURVES: dict[int, tuple[str, icc.Curve]] = {
    1: ("", icc.srgb_curve),  # Rec. 709's, which pictures are shown with as if it were sRGB's
    6: ("", icc.srgb_curve),
    8: (" linear", icc.gamma_curve(1.0)),
    13: ("", icc.srgb_curve),
    16: (" PQ", icc.pq_curve),
    18: (" HLG", icc.hlg_curve),
}


@dataclass(frozen=True)
class Colours:
    """How a picture's levels become sRGB. `profile` is None where they are, or are taken for it."""

    profile: bytes | None = None
    name: str = ""  # of the colour space, for people
    fault: str = ""  # why a profile was ignored


SRGB = Colours()


def find_colours(image: Image.Image) -> Colours:
    """Return the colours of an opened image, by its header. A damaged profile is ignored, with a note in `fault`."""
    space = _named_space(image)
    if space is None:
        return SRGB
    wanted = "L" if image.mode in GREY_MODES else "CMYK" if image.mode == "CMYK" else "RGB"
    return _colours(space.profile, wanted, space.name)


def in_srgb(picture: Image.Image, colours: Colours) -> Image.Image:
    """Return a picture of the modes L, LA, RGB, RGBA or CMYK with levels of sRGB; RGB and RGBA change in place.

    Raises Pillow's errors.
    """
    if colours.profile is None:
        return picture
    if picture.mode in ("L", "LA"):
        return picture.point(_grey_levels(colours.profile) + list(range(256)) * (picture.mode == "LA"))
    transform = _transform(colours.profile, picture.mode)
    if picture.mode == "CMYK":
        return transform.apply(picture)
    transform.apply_in_place(picture)
    return picture


def _named_space(image: Image.Image) -> icc.ColourSpace | None:
    embedded = image.info.get("icc_profile")
    if isinstance(embedded, bytes) and embedded:
        return icc.ColourSpace("", embedded)
    try:
        if image.format == "HEIF" and isinstance(nclx := image.info.get("nclx_profile"), dict):
            return _nclx_space(nclx.get("color_primaries"), nclx.get("transfer_characteristics"))
        if image.format == "PNG":
            return _png_space(image.info)
        return icc.adobe_rgb() if image.format in WITH_EXIF and _says_adobe_rgb(image) else None
    except MALFORMED:  # EXIF or numbers that cannot be read name no colour space
        return None


def _says_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF says so, as cameras do: DCF 2.0, section 3.2.2 (an index of R03)."""
    exif = image.getexif()
    space = exif.get_ifd(IFD.Exif).get(Base.ColorSpace)
    if space in (1, UNCALIBRATED_ADOBE):
        return bool(space == UNCALIBRATED_ADOBE)
    index = exif.get_ifd(IFD.Interop).get(INTEROPERABILITY_INDEX)
    text = index.decode("latin-1") if isinstance(index, bytes) else str(index)
    return text.strip("\0 ") == "R03"


@lru_cache(maxsize=16)
def _nclx_space(primaries: int, transfer: int) -> icc.ColourSpace | None:
    if primaries not in NCLX_PRIMARIES and transfer not in (16, 18):
        return None
    name, chromaticities = NCLX_PRIMARIES.get(primaries, NCLX_PRIMARIES[1])
    suffix, curve = NCLX_CURVES.get(transfer, NCLX_CURVES[13])
    return icc.colour_space(name + suffix, chromaticities, curve)


def _png_space(info: dict[Any, Any]) -> icc.ColourSpace | None:
    """The space of the chunks gAMA and cHRM; sRGB's own chunk comes before them."""
    if "srgb" in info or not ("gamma" in info or "chromaticity" in info):
        return None
    gamma, places = info.get("gamma"), info.get("chromaticity")
    return _chunks_space(float(gamma) if gamma else 0.0, tuple(map(float, places)) if places else ())


@lru_cache(maxsize=16)
def _chunks_space(gamma: float, places: tuple[float, ...]) -> icc.ColourSpace | None:
    if gamma and not 0.1 <= gamma <= 2:
        return None
    # 0.45455 is written for sRGB, whose curve is nearly that of 1 / 0.45455
    curve = icc.srgb_curve if not gamma or abs(gamma - 0.45455) < 0.01 else icc.gamma_curve(1 / gamma)
    name = "a PNG's own primaries and gamma"
    if len(places) != 8:
        return icc.colour_space(name, icc.REC709, curve)
    white, red, green, blue = ((places[i], places[i + 1]) for i in range(0, 8, 2))
    return icc.colour_space(name, (red, green, blue), curve, white)


@lru_cache(maxsize=64)
def _colours(profile: bytes, wanted: str, name: str) -> Colours:
    """Compare a profile with sRGB, for pictures of the mode L, RGB or CMYK."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
        name = name or _name(opened)
        if wanted == "L":
            levels = np.array(_grey_levels(profile))
            differ = int(np.abs(levels - np.arange(256)).max())
        else:
            if opened.xcolor_space.strip() != wanted:
                kind = opened.xcolor_space.strip()
                return Colours(name=name, fault=f"it is for {printable(kind)} and not for {wanted}")
            transform = _transform(profile, wanted)
            if wanted == "CMYK":
                return Colours(profile, name)
            steps = np.linspace(0, 255, GRID).astype(np.uint8)
            grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
            differ = int(np.abs(np.asarray(transform.apply(Image.fromarray(grid))).astype(int) - grid).max())
    except Exception as error:  # noqa: BLE001 - a stranger's profile: whatever it breaks, the levels are taken as sRGB
        return Colours(name=name, fault=printable(str(error) or type(error).__name__)[:SHOWN_CHARACTERS])
    return SRGB if differ <= SAME_LEVELS else Colours(profile, name)


def _name(profile: Any) -> str:
    said = (profile.profile_description or "").strip("\0 \t\r\n")
    return printable(said)[:SHOWN_CHARACTERS] or "a profile without a name"


@lru_cache(maxsize=16)
def _grey_levels(profile: bytes) -> list[int]:
    """Return the level of sRGB for each of 256 grey levels of a profile of grey, or of RGB."""
    kind = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    mode = "RGB" if kind == "RGB" else "L"
    return list(np.asarray(_transform(profile, mode).apply(ramp.convert(mode)).getchannel("G")).reshape(-1).tolist())


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """Return a transform to sRGB, colorimetric and with its black kept black. Raises PyCMSError and OSError."""
    return ImageCms.ImageCmsTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        _srgb(),
        mode,
        "RGBA" if mode == "RGBA" else "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
