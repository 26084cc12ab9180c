"""Decoding one photo to the last byte, judging it, and storing it upright in a format every later stage reads."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image, ImageStat, UnidentifiedImageError

from tasks.core.photos.exif import ExifFacts, read_exif, upright_exif
from tasks.core.photos.files import Offered, is_raw_name
from tasks.core.photos.options import PhotosOptions

pillow_heif.register_heif_opener()
# beyond half of its limit Pillow only warns; the limit itself is what rejects a photo here
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

BLANK_DEVIATION = 1.0  # of 255 levels; sensor noise alone gives about 1, the dullest usable photo more than 10
COPIED_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
}
DRAFTED_FORMATS = ("JPEG", "MPO")
MOST_JPEG_PX = 65_500  # libjpeg's limit
UPRIGHT_BY = {  # EXIF's orientation; Pillow's exif_transpose also rewrites EXIF, which values of a wrong type make fail
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


class RejectedError(Exception):
    """This photo cannot be used; the text says why. Never leaves the photos stage."""


@dataclass(frozen=True)
class StagedPhoto:
    """A usable photo, stored under a provisional path."""

    offered: Offered
    path: Path
    suffix: str  # of the stored format, as the user wrote it where it fits
    width: int
    height: int
    sha256: str
    exif: ExifFacts


def stage_photo(offered: Offered, path: Path, options: PhotosOptions) -> StagedPhoto:
    """Check one photo and store it at `path`: byte for byte where it can stay, else upright as JPEG or PNG.

    Raises:
        RejectedError: the file is no image, is cut off, too small, too large, or blank.
    """
    if is_raw_name(offered.name):
        raise RejectedError("a camera's raw file; export it as JPEG")
    try:
        data = offered.path.read_bytes()
    except OSError as error:
        raise RejectedError(f"cannot be read ({error.strerror})") from None
    if not data:
        raise RejectedError("the file is empty")
    image, (width, height), exif = _decode(data)
    if min(width, height) < options.min_side_px:
        raise RejectedError(f"{width}x{height} px is too small; need {options.min_side_px} px")
    deep = image.mode in DEEP_MODES
    upright = _eight_bit(image) if deep else image
    upright = upright.transpose(UPRIGHT_BY[exif.orientation]) if exif.orientation in UPRIGHT_BY else upright
    try:
        deviation = ImageStat.Stat(upright.convert("L")).stddev[0]
    except ValueError as error:
        raise RejectedError(f"colours that cannot be converted ({error}); export it as JPEG") from None
    if deviation < BLANK_DEVIATION:
        raise RejectedError(f"blank: its brightness varies by {deviation:.1f} of 255 levels")

    suffixes = COPIED_SUFFIXES.get(image.format or "", ())
    suffix = Path(offered.name).suffix
    if suffixes and exif.orientation == 1 and image.mode != "CMYK" and not deep:
        path.write_bytes(data)
        suffix = suffix if suffix.lower() in suffixes else suffixes[0]
    else:
        width, height = upright.size
        suffix = _store_converted(upright, upright_exif(image), path, options.conversion_quality)
    digest = hashlib.sha256(data).hexdigest()
    return StagedPhoto(offered, path, suffix, width, height, digest, exif)


def _decode(data: bytes) -> tuple[Image.Image, tuple[int, int], ExifFacts]:
    """The first frame, read to its last byte; its width and height in the file; its EXIF.

    The pixels of a JPEG that is kept as it is serve to judge it only: they are grey and at an eighth of its size, which
    reads as many bytes in a third of the time.
    """
    try:
        image = Image.open(io.BytesIO(data))
        size = image.size
        if image.format in DRAFTED_FORMATS and image.mode != "CMYK" and (exif := read_exif(image)).orientation == 1:
            image.draft("L", (max(size[0] // 8, 1), max(size[1] // 8, 1)))
            image.load()
            return image, size, exif
        image.load()
        return image, size, read_exif(image)
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise RejectedError(f"more than {limit:.0f} megapixels; scale it down") from None
    except UnidentifiedImageError:
        raise RejectedError("not an image, whatever its name says") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, RuntimeError) as error:
        # what Pillow's decoders raise for bytes that stop early or make no sense
        raise RejectedError(f"damaged or cut off ({error})") from None


def _eight_bit(image: Image.Image) -> Image.Image:
    """A deep grey image scaled to 8 bits: from 16 bits by value, floats by their own range."""
    values = np.asarray(image, dtype=np.float64)
    top = float(values.max(initial=0.0))
    full = 65535.0 if 1.0 < top <= 65535.0 else max(top, 1e-12)
    return Image.fromarray((np.clip(values / full, 0, 1) * 255).round().astype(np.uint8))


def _store_converted(upright: Image.Image, exif: Image.Exif, path: Path, quality: int) -> str:
    """Re-encode and return the suffix: PNG where there is transparency, else JPEG."""
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright.convert("RGBA").save(path, format="PNG", exif=exif, compress_level=3)
        return ".png"
    if max(upright.size) > MOST_JPEG_PX:
        raise RejectedError(f"{upright.width}x{upright.height} px; a JPEG has at most {MOST_JPEG_PX} px a side")
    colours = upright if upright.mode in ("L", "RGB") else upright.convert("RGB")
    colours.save(path, format="JPEG", exif=exif, quality=quality, subsampling=0)
    return ".jpg"
