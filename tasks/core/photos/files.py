"""Find the files of a folder that count as photos, by their extensions, and sort them."""

import os
import re
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.image_file import ImageError

READ_BY_PILLOW = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp")
READ_BY_HEIF = (".heic", ".heif", ".hif", ".avif")
RAW_SUFFIXES = frozenset([".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".srw", ".pef", ".raw"])
PHOTO_SUFFIXES = (
    frozenset([*READ_BY_PILLOW, *READ_BY_HEIF]) | RAW_SUFFIXES
)  # raw files are listed too, and then rejected by name
MOST_FILE_BYTES = 1 << 30  # of one photo; TIFF files of the largest cameras have 900 MB


@dataclass(frozen=True)
class Offered:
    """A file with a photo's extension. `name` is its path below the source, posix."""

    name: str
    path: Path


def is_photo_name(name: str) -> bool:
    """Whether a posix path counts as a photo: by its extension, outside hidden and system folders."""
    return not is_hidden(name) and Path(name).suffix.lower() in PHOTO_SUFFIXES


def is_raw_name(name: str) -> bool:
    """Whether a file's extension is that of a camera's raw files. They are rejected without reading their bytes."""
    return Path(name).suffix.lower() in RAW_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a posix path is a hidden file, or in a hidden or system folder."""
    return any(part.startswith(".") or part in ("__MACOSX", "@eaDir") for part in name.split("/"))


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts photo2 before photo10. Ties (photo2, photo02) are broken by the name itself."""
    key = []
    for piece in filter(None, re.split(r"([0-9]+)", name.casefold())):
        digits = piece.lstrip("0")  # by count and value of the digits: Python's int() refuses more than 4300 digits
        key.append((0, len(digits), digits) if piece.isdecimal() and piece.isascii() else (1, 0, piece))
    return (*key, (2, 0, name))


def require_photo_size(size_bytes: int) -> None:
    """Raise ImageError for a file that is too large to be a photo."""
    if size_bytes > MOST_FILE_BYTES:
        limit = MOST_FILE_BYTES / 1e9
        raise ImageError(f"{size_bytes / 1e9:.1f} GB in one file, the limit is {limit:.1f} GB; export it as JPEG")


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading. Raises ImageError for pipes, devices and the like, where reading may never end."""
    if stat.S_ISREG(path.stat().st_mode):  # checked first: opening some devices already has an effect
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise ImageError("no regular file but a pipe, a device or the like; give the photo itself")


def file_names(folder: Path, unreadable: list[OSError] | None = None) -> list[str]:
    """The posix paths of all files below a folder. Errors of subfolders are added to `unreadable`."""
    names: list[str] = []
    for parent, _, files in os.walk(folder, onerror=None if unreadable is None else unreadable.append):
        names += [(Path(parent) / file).relative_to(folder).as_posix() for file in files]
    return names


def offered_photos(folder: Path) -> list[Offered]:
    """All files below a folder that count as photos, in natural name order.

    Raises:
        PhotosError: the folder cannot be read, is empty, or none of its files has a photo's extension.
    """
    unreadable: list[OSError] = []
    names = file_names(folder, unreadable)
    if unreadable and not names:
        raise PhotosError(
            f"{folder} cannot be read ({unreadable[0].strerror}): give its owner's permission to read it."
        )
    if not names:
        raise PhotosError(f"{folder} is empty: put at least 3 overlapping photos of one place into it.")
    photos = sorted((name for name in names if is_photo_name(name)), key=natural_order)
    if not photos:
        kinds = ", ".join(sorted({Path(name).suffix.lower() or "no extension" for name in names})[:6])
        raise PhotosError(
            f"No photos among {len(names)} files in {folder.name} (found: {kinds}): give JPEG, PNG, HEIC, WebP or TIFF."
        )
    return [Offered(name, folder / name) for name in photos]
