"""Headers of photos, read without decoding: size, and EXIF's focal length, time and place."""

import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from tasks.core.errors import UnsafeNameError
from tasks.core.image_file import ImageError, open_image, reading_image
from tasks.core.photos import pixels  # noqa: F401 - teaches Pillow to open HEIC
from tasks.core.photos.archive import checked_members, open_archive, require_archive, require_photos
from tasks.core.photos.exif import read_exif
from tasks.core.photos.files import is_raw_name, natural_order, offered_photos, open_regular
from tasks.core.photos.memory import MemoryBudget, defer_exif
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import Photo
from tasks.core.safe_names import WANTED_NAME_BYTES, safe_name, storable

HEADER_BYTES = 128 * 1024  # EXIF is at most 64 kB, and the size follows it
# Of members whose header is not in their first bytes (some decoders want the whole file): so much of each, and of all
# together as much as the archive's own size, and this.
MOST_WHOLE_BYTES = 64 << 20
WHOLE_FREE_BYTES = 64 << 20
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True)
class PhotoHeaders:
    """Photos by their headers alone: one whose end is cut off, or that is blank, still counts here.

    `photos` stand in the order of the photos stage; their bytes are not read, so their `sha256` is empty.
    """

    photos: tuple[Photo, ...]
    unreadable: int  # files without a header that can be read; raw files among them


@dataclass(frozen=True)
class HeaderSource:
    """A file that is offered as a photo: its name, and a function that opens it, or the available part of it.

    If `open` returns only the file's beginning, and that has no header, `whole` opens all of it or returns None.
    """

    name: str
    open: Callable[[], IO[bytes]]
    whole: Callable[[], IO[bytes] | None] = lambda: None


def read_headers(source: Path, options: PhotosOptions | None = None) -> PhotoHeaders:
    """The headers of the photos in a folder or a .zip, whose directory is checked first as for unpacking.

    Raises PhotosError as the photos stage does for what is no folder, no archive, an unsafe one, or holds no photos.
    """
    if source.is_dir():
        return headers_of(
            HeaderSource(photo.name, partial(open_regular, photo.path)) for photo in offered_photos(source)
        )
    require_archive(source)
    with open_archive(source) as archive:
        members = checked_members(source, archive, options or PhotosOptions())
        require_photos(source, members)
        allowance = _Allowance(source.stat().st_size + WHOLE_FREE_BYTES)
        found = headers_of(
            HeaderSource(name, partial(_beginning, archive, member), partial(_whole, archive, member, allowance))
            for member, name in members.photos
        )
    return PhotoHeaders(found.photos, found.unreadable + len(members.rejected))


def headers_of(sources: Iterable[HeaderSource]) -> PhotoHeaders:
    """Return the headers of files, and the number of unreadable files."""
    offered = sorted(sources, key=lambda source: natural_order(source.name))
    memory = MemoryBudget()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(partial(_read, memory), offered))
    photos = [photo for photo in found if photo is not None]
    if photos and all(photo.taken_at for photo in photos):
        photos.sort(key=lambda photo: photo.taken_at or "")  # as the photos stage does
    return PhotoHeaders(tuple(photos), len(found) - len(photos))


class _Allowance:
    """Bytes that several threads may still read."""

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes
        self._lock = threading.Lock()

    def take(self, wanted_bytes: int) -> bool:
        with self._lock:
            if wanted_bytes > self._left_bytes:
                return False
            self._left_bytes -= wanted_bytes
            return True


def _beginning(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    with archive.open(member) as file:
        return io.BytesIO(file.read(HEADER_BYTES))


def _whole(archive: zipfile.ZipFile, member: zipfile.ZipInfo, allowance: _Allowance) -> IO[bytes] | None:
    """A member in memory: Pillow seeks back and forth, and a member is unpacked anew for each way back."""
    if not HEADER_BYTES < member.file_size <= MOST_WHOLE_BYTES or not allowance.take(member.file_size):
        return None
    with archive.open(member) as file:
        return io.BytesIO(file.read(member.file_size))


def _read(memory: MemoryBudget, source: HeaderSource) -> Photo | None:
    try:
        name = safe_name(storable(source.name), WANTED_NAME_BYTES)
    except UnsafeNameError:
        return None
    if is_raw_name(name):
        return None
    return _photo(memory, name, source.open) or _photo(memory, name, source.whole)


def _photo(memory: MemoryBudget, name: str, opener: Callable[[], IO[bytes] | None]) -> Photo | None:
    """Return the photo of a file's header; None if it has none, since the photos stage will report the reason."""
    try:
        file = opener()
        if file is None:
            return None
        # As much as some decoders read for the header alone.
        with file, memory.taking(file.seek(0, os.SEEK_END)), reading_image(), open_image(file) as image:
            defer_exif(image)
            exif = read_exif(image)
            width, height = image.size[::-1] if exif.orientation in TURNED else image.size
    except (ImageError, OSError):
        return None
    return Photo(
        name=name,
        width=width,
        height=height,
        sha256="",
        focal_px=exif.focal_px,
        focal_doubted=exif.focal_doubted,
        camera=exif.camera,
        taken_at=exif.taken_at,
        utc_offset_minutes=exif.utc_offset_minutes,
        gps=exif.gps,
    )
