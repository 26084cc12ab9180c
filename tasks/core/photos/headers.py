"""What photos say before anybody decodes them: their size, and what EXIF tells of focal length, time and place."""

import os
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from tasks.core.errors import PhotosError
from tasks.core.photos import pixels  # noqa: F401 - teaches Pillow to open HEIC
from tasks.core.photos.archive import member_name, unreadable
from tasks.core.photos.exif import read_exif
from tasks.core.photos.files import is_photo_name, is_raw_name, natural_order, offered_photos
from tasks.core.photoset import Photo
from tasks.core.zip_errors import DAMAGED_ZIP

TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


@dataclass(frozen=True)
class PhotoHeaders:
    """Photos by their headers alone: one whose end is cut off, or that is blank, still counts here.

    `photos` stand in the order of the photos stage; nobody has read their bytes, so their `sha256` is empty.
    """

    photos: tuple[Photo, ...]
    unreadable: int  # files without a header that can be read; raw files among them


@dataclass(frozen=True)
class HeaderSource:
    """A file that is offered as a photo: its name, and how to open it, or as much of it as is at hand."""

    name: str
    open: Callable[[], IO[bytes]]


def read_headers(source: Path) -> PhotoHeaders:
    """The headers of the photos in a folder or a .zip.

    Raises PhotosError as the photos stage does for what is no folder, no archive, or holds no photos.
    """
    if source.is_dir():
        return headers_of(HeaderSource(photo.name, partial(_opened, photo.path)) for photo in offered_photos(source))
    if source.suffix.lower() != ".zip":
        raise PhotosError(f"{source.name} is one file: give a folder of photos, or a .zip.")
    try:
        with zipfile.ZipFile(source) as archive:
            members = [
                member
                for member in archive.infolist()
                if not member.filename.endswith("/") and is_photo_name(member.filename)
            ]
            if not members:
                raise PhotosError(f"No photos among {len(archive.infolist())} files in {source.name}.")
            return headers_of(
                HeaderSource(member_name(source, member), partial(archive.open, member)) for member in members
            )
    except DAMAGED_ZIP as error:
        raise unreadable(source, error) from error


def headers_of(sources: Iterable[HeaderSource]) -> PhotoHeaders:
    """The headers of files; what cannot be read is counted."""
    offered = sorted(sources, key=lambda source: natural_order(source.name))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_read, offered))
    photos = [photo for photo in found if photo is not None]
    if photos and all(photo.taken_at for photo in photos):
        photos.sort(key=lambda photo: photo.taken_at or "")  # as the photos stage does
    return PhotoHeaders(tuple(photos), len(found) - len(photos))


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _read(source: HeaderSource) -> Photo | None:
    if is_raw_name(source.name):
        return None
    try:
        with source.open() as file, Image.open(file) as image:
            exif = read_exif(image)
            width, height = image.size[::-1] if exif.orientation in TURNED else image.size
    # As Pillow raises for what is no image or a damaged one; RuntimeError is zipfile's word for an encrypted member.
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, RuntimeError):
        return None  # the photos stage will say what is wrong with it
    return Photo(
        name=source.name,
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
