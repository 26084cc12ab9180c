"""Decode one photo to the last byte, check it, and store it upright in a format that every later stage reads."""

import errno
import hashlib
import io
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from tasks.core.image_file import ImageError, open_image, reading_image
from tasks.core.photos.exif import ExifFacts, read_exif, upright_exif
from tasks.core.photos.files import Offered, is_raw_name, open_regular, require_photo_size
from tasks.core.photos.memory import (
    DEEP_MODES,
    JPEG_FORMATS,
    MemoryBudget,
    coefficient_bytes,
    decoding_bytes,
    defer_exif,
    require_few_scans,
)
from tasks.core.photos.options import PhotosOptions

pillow_heif.register_heif_opener()

BLANK_DEVIATION = 1.0  # of 255 levels; sensor noise alone gives about 1, the dullest usable photo more than 10
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
COPIED_SUFFIXES = {"JPEG": JPEG_SUFFIXES, "MPO": JPEG_SUFFIXES, "PNG": (".png",)}
DRAFT_SCALE = 8
MOST_JPEG_PX = 65_500  # libjpeg's limit
STRIP_PIXELS = 1 << 18  # as many are looked at at once: what each thread works with is not in the budget
UPRIGHT_BY = {  # EXIF's orientation; Pillow's exif_transpose also rewrites EXIF, which values of a wrong type make fail
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Errors of the system about one file, and not about its disk.
OF_ONE_FILE = frozenset(
    [errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO]
)


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


@dataclass(frozen=True)
class _Header:
    """Facts about a photo before it is decoded."""

    format: str
    width: int
    height: int
    exif: ExifFacts
    small_exif: Image.Exif  # for converted pixels
    exif_deferred: bool  # whether it may come after the pixels
    kept: bool  # whether the file stays as it is
    needed_bytes: int  # of memory, to decode and convert it


def stage_photo(offered: Offered, path: Path, options: PhotosOptions, memory: MemoryBudget) -> StagedPhoto:
    """Check one photo and store it at `path`: byte for byte where it can stay, else upright as JPEG or PNG.

    It waits until `memory` has room for the photo.

    Raises:
        ImageError: the file is no image, is cut off, too small, too large, or blank.
        OSError: the disk fails.
    """
    if is_raw_name(offered.name):
        raise ImageError("a camera's raw file; export it as JPEG")
    with _opened(offered.path) as file:
        header = _read_header(file, options, memory)
        with memory.taking(header.needed_bytes):
            return _stage(offered, file, header, path, options)


def _opened(path: Path) -> BufferedReader:
    try:
        return open_regular(path)
    except OSError as error:
        if error.errno not in OF_ONE_FILE:
            raise
        raise ImageError(f"cannot be read ({error.strerror})") from None


def _read_header(file: IO[bytes], options: PhotosOptions, memory: MemoryBudget) -> _Header:
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise ImageError("the file is empty")
    require_photo_size(size)
    with memory.taking(size), reading_image():  # as much as some decoders read for the header alone
        image = open_image(file)
        if min(image.size) < options.min_side_px:
            raise ImageError(f"{image.width}x{image.height} px is too small; need {options.min_side_px} px")
        deferred = defer_exif(image)
        exif = read_exif(image)
        copied = image.format in COPIED_SUFFIXES and image.mode not in ("CMYK", *DEEP_MODES)
        kept = copied and exif.orientation == 1
        if image.format in JPEG_FORMATS and coefficient_bytes(file):
            require_few_scans(file)
        needed = decoding_bytes(image, file, size, kept and not deferred)
        return _Header(image.format or "", *image.size, exif, upright_exif(image), deferred, kept, needed)


def _stage(offered: Offered, file: BufferedReader, header: _Header, path: Path, options: PhotosOptions) -> StagedPhoto:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    decoded = [_decoded(file, header)]
    if header.exif_deferred:
        with reading_image():
            exif, small = read_exif(decoded[0]), upright_exif(decoded[0])
        header = replace(header, exif=exif, small_exif=small, kept=header.kept and exif.orientation == 1)
    if header.kept:
        _require_contrast(decoded.pop())
        file.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(file, target)
        suffix, suffixes = Path(offered.name).suffix, COPIED_SUFFIXES[header.format]
        suffix = suffix if suffix.lower() in suffixes else suffixes[0]
        return StagedPhoto(offered, path, suffix, header.width, header.height, digest, header.exif)
    # Nothing else refers to a picture that the next one is made of: it is gone before that one is encoded.
    upright = _upright(decoded.pop(), header.exif.orientation)
    _require_contrast(upright)
    suffix, content = _encoded(upright, header.small_exif, options.conversion_quality)
    path.write_bytes(content)
    return StagedPhoto(offered, path, suffix, *upright.size, digest, header.exif)


def _decoded(file: IO[bytes], header: _Header) -> Image.Image:
    """The first frame, read to its last byte.

    The pixels of a JPEG that is kept as it is serve to judge it only: they are grey and at an eighth of its size, which
    reads as many bytes in a third of the time.
    """
    with reading_image():
        image = open_image(file)
        if header.kept and header.format in JPEG_FORMATS:
            image.draft("L", (max(image.width // DRAFT_SCALE, 1), max(image.height // DRAFT_SCALE, 1)))
        image.load()
        return image


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Return the picture turned upright, in 8 bits: L, RGB, or RGBA if it has transparency."""
    deep = picture.mode in DEEP_MODES
    transparent = not deep and (picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info)
    mode = "RGBA" if transparent else "L" if deep or picture.mode == "L" else "RGB"
    steps: list[Callable[[Image.Image], Image.Image]] = []
    if deep:
        steps.append(_eight_bit)
    if orientation in UPRIGHT_BY:
        steps.append(lambda picture: picture.transpose(UPRIGHT_BY[orientation]))
    if not deep and picture.mode != mode:
        steps.append(lambda picture: _converted(picture, mode))
    with reading_image():
        for step in steps:
            picture = step(picture)
    return picture


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    try:
        if picture.mode == "LAB":  # Pillow makes colours of it, but no brightness
            raise ValueError("Lab")
        return picture.convert(mode)
    except ValueError as error:
        raise ImageError(f"colours that cannot be converted ({error}); export it as JPEG") from None


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in pieces from top to bottom, each with its first row."""
    rows = max(STRIP_PIXELS // picture.width, 1)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _eight_bit(image: Image.Image) -> Image.Image:
    """A deep grey image scaled to 8 bits: from 16 bits by value, floats by their own range."""
    top = max(float(_values(strip).max(initial=0.0)) for _, strip in _strips(image))
    full = 65535.0 if 1.0 < top <= 65535.0 else max(top, 1e-12)
    scaled = Image.new("L", image.size)
    for row, strip in _strips(image):
        levels = (np.clip(_values(strip) / np.float32(full), 0, 1) * 255).round().astype(np.uint8)
        scaled.paste(Image.fromarray(levels), (0, row))
    return scaled


def _values(strip: Image.Image) -> NDArray[np.float32]:
    """Return levels [H, W]; values that are not numbers count as black."""
    return np.nan_to_num(np.asarray(strip, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _require_contrast(picture: Image.Image) -> None:
    """Raise ImageError for a picture of uniform brightness."""
    histogram = np.zeros(256, np.int64)
    with reading_image():
        for _, strip in _strips(picture):
            histogram += np.asarray(_converted(strip, "L").histogram(), np.int64)
    levels, count = np.arange(256), int(histogram.sum())
    mean = float(histogram @ levels) / count
    deviation = math.sqrt(float(histogram @ (levels - mean) ** 2) / count)
    if deviation < BLANK_DEVIATION:
        raise ImageError(f"blank: its brightness varies by {deviation:.1f} of 255 levels")


def _encoded(upright: Image.Image, exif: Image.Exif, quality: int) -> tuple[str, memoryview]:
    """A suffix and the file: PNG where there is transparency, else JPEG.

    In memory, where an encoder's error is the photo's and not the disk's.
    """
    buffer = io.BytesIO()
    if upright.mode == "RGBA":
        with reading_image():
            upright.save(buffer, format="PNG", exif=exif, compress_level=3)
        return ".png", buffer.getbuffer()
    if max(upright.size) > MOST_JPEG_PX:
        raise ImageError(f"{upright.width}x{upright.height} px; a JPEG has at most {MOST_JPEG_PX} px a side")
    with reading_image():
        upright.save(buffer, format="JPEG", exif=exif, quality=quality, subsampling=0)
    return ".jpg", buffer.getbuffer()
