"""Decode one photo to the last byte, check it, and store it upright in a format that every later stage reads."""

import errno
import hashlib
import io
import math
import os
import shutil
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
import pillow_heif
from PIL import Image

from tasks.core.image_file import ImageError, open_image, reading_image
from tasks.core.photos.exif import ExifFacts, read_exif, upright_exif
from tasks.core.photos.files import Offered, is_raw_name, open_regular, require_photo_size
from tasks.core.photos.likeness import Thumbnail, thumbnail
from tasks.core.photos.memory import (
    JPEG_FORMATS,
    MemoryBudget,
    coefficient_bytes,
    decoding_bytes,
    defer_exif,
    judged_size,
    require_few_scans,
)
from tasks.core.photos.options import PhotosOptions
from tasks.core.pixels.levels import Levels, LevelSample, sample_levels, strips
from tasks.core.pixels.plain import Change, Kind, converted, kind_of, plain
from tasks.core.safe_names import printable, storable

pillow_heif.register_heif_opener()

BLANK_DEVIATION = 1.0  # of 255 levels; sensor noise alone gives about 1, the dullest usable photo more than 10
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
COPIED_SUFFIXES = {"JPEG": JPEG_SUFFIXES, "MPO": JPEG_SUFFIXES, "PNG": (".png",)}
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
    kept: bool  # whether it is stored byte for byte
    change: Change  # of its pixels
    thumbnail: Thumbnail = field(repr=False, compare=False)


@dataclass(frozen=True)
class DeepPhoto:
    """A photo with more than 8 bits of grey, which waits for the range of its set."""

    offered: Offered
    path: Path  # where it will be stored
    camera: str | None
    sample: LevelSample = field(repr=False, compare=False)


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
    kind: Kind
    needed_bytes: int  # of memory, to decode and convert it


def stage_photo(
    offered: Offered, path: Path, options: PhotosOptions, memory: MemoryBudget, levels: Levels | None = None
) -> StagedPhoto:
    """Check one photo and store it at `path`: byte for byte where it can stay, else upright as JPEG or PNG in sRGB.

    It waits until `memory` has room for the photo. `levels` are those of the set, for a photo with more than 8 bits of
    grey; without them it has a range of its own.

    Raises:
        ImageError: the file is no image, is cut off, too small, too large, or blank.
        OSError: the disk fails.
    """
    with _opened(offered) as file:
        header = _read_header(file, options, memory, levels)
        with memory.taking(header.needed_bytes):
            return _stage(offered, file, header, path, options, levels)


def stage_or_sample(
    offered: Offered, path: Path, options: PhotosOptions, memory: MemoryBudget
) -> StagedPhoto | DeepPhoto:
    """As `stage_photo`, but only sample a photo with more than 8 bits of grey, whose set decides its range."""
    with _opened(offered) as file:
        header = _read_header(file, options, memory)
        with memory.taking(header.needed_bytes):
            if not header.kind.deep:
                return _stage(offered, file, header, path, options, None)
            picture = _decoded(file, header)[0]
            with reading_image():
                return DeepPhoto(offered, path, header.exif.camera, sample_levels(picture))


def _opened(offered: Offered) -> BufferedReader:
    if is_raw_name(offered.name):
        raise ImageError("a camera's raw file; export it as JPEG")
    try:
        return open_regular(offered.path)
    except OSError as error:
        if error.errno not in OF_ONE_FILE:
            raise
        raise ImageError(f"cannot be read ({error.strerror})") from None


def _read_header(
    file: IO[bytes], options: PhotosOptions, memory: MemoryBudget, levels: Levels | None = None
) -> _Header:
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
        kind = kind_of(image).at(levels)
        kept = image.format in COPIED_SUFFIXES and kind.plain and exif.orientation == 1
        if image.format in JPEG_FORMATS and coefficient_bytes(file):
            require_few_scans(file)
        needed = decoding_bytes(image, file, size, kept and not deferred)
        return _Header(image.format or "", *image.size, exif, upright_exif(image), deferred, kept, kind, needed)


def _stage(
    offered: Offered, file: BufferedReader, header: _Header, path: Path, options: PhotosOptions, levels: Levels | None
) -> StagedPhoto:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = printable(storable(offered.name))
    picture, box = _decoded(file, header)
    decoded = [picture]
    del picture  # nothing else refers to a picture that the next one is made of, so it is gone before that is encoded
    if header.exif_deferred:
        with reading_image():
            exif, block = read_exif(decoded[0]), upright_exif(decoded[0])
        header = replace(header, exif=exif, small_exif=block, kept=header.kept and exif.orientation == 1)
    if header.kept:
        _require_contrast(decoded[0])
        with reading_image():
            small = thumbnail(decoded.pop(), box)
        file.seek(0)
        with path.open("wb") as target:
            shutil.copyfileobj(file, target)
        suffix, suffixes = Path(offered.name).suffix, COPIED_SUFFIXES[header.format]
        suffix = suffix if suffix.lower() in suffixes else suffixes[0]
        change = Change(name, header.kind, transparent=False, levels=None)
        return StagedPhoto(offered, path, suffix, header.width, header.height, digest, header.exif, True, change, small)
    with reading_image():
        upright, transparent = plain(decoded.pop(), header.kind, levels, lambda: _opened_again(file))
        if header.exif.orientation in UPRIGHT_BY:
            upright = upright.transpose(UPRIGHT_BY[header.exif.orientation])
    _require_contrast(upright)
    with reading_image():
        small = thumbnail(upright)
    suffix, content = _encoded(upright, header, options.conversion_quality)
    path.write_bytes(content)
    change = Change(name, header.kind, transparent, levels)
    return StagedPhoto(offered, path, suffix, *upright.size, digest, header.exif, False, change, small)


def _opened_again(file: BufferedReader) -> Image.Image:
    file.seek(0)
    return open_image(file)


def _decoded(file: IO[bytes], header: _Header) -> tuple[Image.Image, tuple[float, float, float, float] | None]:
    """Return the first frame, read to its last byte, and the part of it that is the photo, if not all is.

    The pixels of a JPEG that is kept as it is serve to judge it only: they are grey and at an eighth of its size, which
    reads as many bytes in a third of the time.
    """
    with reading_image():
        image, box = open_image(file), None
        if header.kept and header.format in JPEG_FORMATS:
            drafted = image.draft("L", judged_size(image.width, image.height))
            box = None if drafted is None else drafted[1]
        image.load()
        return image, box


def _require_contrast(picture: Image.Image) -> None:
    """Raise ImageError for a picture of uniform brightness."""
    histogram = np.zeros(256, np.int64)
    with reading_image():
        for _, strip in strips(picture):
            histogram += np.asarray(converted(strip, "L").histogram(), np.int64)
    levels, count = np.arange(256), int(histogram.sum())
    mean = float(histogram @ levels) / count
    deviation = math.sqrt(float(histogram @ (levels - mean) ** 2) / count)
    if deviation < BLANK_DEVIATION:
        raise ImageError(f"blank: its brightness varies by {deviation:.1f} of 255 levels")


def _encoded(upright: Image.Image, header: _Header, quality: int) -> tuple[str, memoryview]:
    """A suffix and the file: PNG where a mask has been cut out, whose edges JPEG would blur, else JPEG.

    In memory, where an encoder's error is the photo's and not the disk's.
    """
    buffer = io.BytesIO()
    if header.kind.alpha:
        with reading_image():
            upright.save(buffer, format="PNG", exif=header.small_exif, compress_level=3)
        return ".png", buffer.getbuffer()
    if max(upright.size) > MOST_JPEG_PX:
        raise ImageError(f"{upright.width}x{upright.height} px; a JPEG has at most {MOST_JPEG_PX} px a side")
    with reading_image():
        upright.save(buffer, format="JPEG", exif=header.small_exif, quality=quality, subsampling=0)
    return ".jpg", buffer.getbuffer()
