"""Find the files of a folder that count as photos, by their extensions or first bytes, and sort them."""

import os
import re
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.image_file import ImageError
from tasks.core.photos.other_files import VIDEO_SUFFIXES, count_kinds, videos_note
from tasks.core.safe_names import printable

READ_BY_PILLOW = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp")
READ_BY_HEIF = (".heic", ".heif", ".hif", ".avif")
RAW_SUFFIXES = frozenset(
    [
        *(
            ".dng",
            ".cr2",
            ".cr3",
            ".crw",
            ".nef",
            ".nrw",
            ".arw",
            ".sr2",
            ".orf",
            ".rw2",
            ".raf",
            ".srw",
            ".pef",
            ".raw",
        ),
        *(".3fr", ".fff", ".iiq", ".gpr", ".x3f", ".rwl", ".erf", ".kdc", ".dcr", ".mrw", ".mef", ".mos"),
    ]
)
PHOTO_SUFFIXES = (
    frozenset([*READ_BY_PILLOW, *READ_BY_HEIF]) | RAW_SUFFIXES
)  # raw files are listed too, and then rejected by name
# Files whose first bytes may be those of a photo, and that are none: videos, previews of videos and of other programs.
NEVER_PHOTOS = VIDEO_SUFFIXES | {".thm", ".lrv", ".insp", ".jps", ".pns"}
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "ehthumbs.db")
SNIFFED_BYTES = 16
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif")
MOST_FILE_BYTES = 1 << 30  # of one photo; TIFF files of the largest cameras have 900 MB


@dataclass(frozen=True)
class Offered:
    """A file that counts as a photo. `name` is its path below the source, posix."""

    name: str
    path: Path


@dataclass(frozen=True)
class FolderContent:
    """The files below a folder, without hidden ones and those of the system."""

    photos: tuple[Offered, ...]  # in natural name order
    others: tuple[str, ...]  # names of files that are not read


def is_photo_name(name: str) -> bool:
    """Whether a posix path counts as a photo: by its extension, outside hidden and system folders."""
    return not is_hidden(name) and Path(name).suffix.lower() in PHOTO_SUFFIXES


def may_hide_photo(name: str) -> bool:
    """Whether the first bytes of a file decide if it is a photo: its extension says neither that it is one nor not."""
    return not is_hidden(name) and Path(name).suffix.lower() not in (PHOTO_SUFFIXES | NEVER_PHOTOS)


def begins_like_photo(beginning: bytes) -> bool:
    """Whether a file with these first SNIFFED_BYTES is a JPEG, PNG, WebP, HEIC or AVIF. TIFF may be a camera's raw."""
    return (
        beginning.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
        or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP")
        or (beginning[4:8] == b"ftyp" and beginning[8:12] in HEIF_BRANDS)
    )


def is_raw_name(name: str) -> bool:
    """Whether a file's extension is that of a camera's raw files. They are rejected without reading their bytes."""
    return Path(name).suffix.lower() in RAW_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether a posix path is a hidden file or one of the system, or in a hidden or system folder."""
    parts = name.split("/")
    return parts[-1].lower() in SYSTEM_FILES or any(
        part.startswith(".") or part in ("__MACOSX", "@eaDir") for part in parts
    )


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
    """The posix paths of all files below a folder. Errors of subfolders are added to `unreadable`.

    Links to folders are followed after all real ones, each folder once. A link to a folder that contains the source
    leads back to it, and is left out.
    """
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    above = {_identity(parent) for parent in (folder.resolve(), *folder.resolve().parents)} - {None}
    waiting, on_error = [folder], None if unreadable is None else unreadable.append
    while waiting:
        links: list[Path] = []
        for begin in waiting:
            identity = _identity(begin)
            if begin is not folder and (identity is None or identity in seen or identity in above):
                continue
            for parent, folders, files in os.walk(begin, onerror=on_error):
                here = _identity(Path(parent))
                if here is None or here in seen:
                    folders.clear()
                    continue
                seen.add(here)
                folders.sort()
                names += [(Path(parent) / file).relative_to(folder).as_posix() for file in files]
                links += [path for path in (Path(parent) / name for name in folders) if path.is_symlink()]
        waiting = [link for link in sorted(links) if not is_hidden(link.relative_to(folder).as_posix())]
    return names


def _identity(folder: Path) -> tuple[int, int] | None:
    """The folder itself, whatever path leads to it; None where none can be opened."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def folder_content(folder: Path) -> FolderContent:
    """All files below a folder that count as photos, and the names of the others.

    Raises:
        PhotosError: the folder cannot be read, is empty, or none of its files is a photo.
    """
    unreadable: list[OSError] = []
    names = file_names(folder, unreadable)
    if unreadable and not names:
        raise PhotosError(
            f"{folder} cannot be read ({unreadable[0].strerror}): give its owner's permission to read it."
        )
    if not names:
        raise PhotosError(f"{folder} is empty: put at least 3 overlapping photos of one place into it.")
    photos = sorted((name for name in names if _is_photo(folder, name)), key=natural_order)
    if not photos:
        raise PhotosError(no_photos(f"{len(names)} files in {printable(folder.name)}", names))
    known = set(photos)
    return FolderContent(
        photos=tuple(Offered(name, folder / name) for name in photos),
        others=tuple(name for name in names if name not in known and not is_hidden(name)),
    )


def offered_photos(folder: Path) -> list[Offered]:
    """The photos of `folder_content`."""
    return list(folder_content(folder).photos)


def no_photos(where: str, names: list[str]) -> str:
    """The message that there is no photo among files: `where` says how many there are and where."""
    kinds = count_kinds(names)
    what = "give JPEG, PNG, HEIC, WebP or TIFF."
    return " ".join([f"No photos among {where} (found: {', '.join(sorted(kinds)[:6])}): {what}", *videos_note(kinds)])


def _is_photo(folder: Path, name: str) -> bool:
    return is_photo_name(name) or (may_hide_photo(name) and _sniffed(folder / name))


def _sniffed(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return begins_like_photo(file.read(SNIFFED_BYTES))
    except (ImageError, OSError):
        return False
