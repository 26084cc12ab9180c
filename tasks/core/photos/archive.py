"""Unpack an untrusted .zip.

All members are checked before anything is written; sizes are counted while reading, because headers can lie.
"""

import errno
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import PhotosError, UnsafeNameError, UnstorableNameError
from tasks.core.image_file import ImageError
from tasks.core.photos.files import (
    SNIFFED_BYTES,
    begins_like_photo,
    is_photo_name,
    may_hide_photo,
    no_photos,
    require_photo_size,
)
from tasks.core.photos.flight_log import log_among
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import RejectedPhoto
from tasks.core.safe_names import DAMAGED_ZIP, TakenNames, below, reason, shown, storable
from tasks.core.storage.disk import disk_full, free_bytes

CHUNK_BYTES = 1 << 20
RATIO_FREE_BYTES = 10 << 20  # below this size a ratio does no harm, and flat test pictures compress well
GIB = 1 << 30


@dataclass(frozen=True)
class Members:
    """The files of an archive whose directory is in order, under names that fit below one folder."""

    photos: tuple[tuple[zipfile.ZipInfo, str], ...]
    others: tuple[tuple[zipfile.ZipInfo, str], ...]
    rejected: tuple[RejectedPhoto, ...]  # photos that cannot be unpacked, though nothing is wrong with the others

    @property
    def files(self) -> tuple[tuple[zipfile.ZipInfo, str], ...]:
        """Photos and others."""
        return self.photos + self.others


def require_archive(source: Path) -> None:
    """Raise PhotosError unless the source is a .zip: if it is missing, another file, or a pipe, which may never end."""
    if not source.exists():
        raise PhotosError(f"{source} does not exist: give a folder of photos or a .zip.")
    if not source.is_file():
        raise PhotosError(f"{source} is neither a folder nor a regular file: give a folder of photos or a .zip.")
    if source.suffix.lower() != ".zip":
        raise PhotosError(f"{source.name} is one file: give a folder of at least 3 photos, or a .zip.")


@contextmanager
def open_archive(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a .zip. Its faults, even when members are read, become PhotosErrors; errors of the disk pass."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except (*DAMAGED_ZIP, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # the system's, of the disk
            raise
        if isinstance(error, UnicodeDecodeError):
            raise PhotosError(
                f"{archive.name} holds a file name that is not valid {error.encoding}: pack it again."
            ) from error
        raise PhotosError(
            f"{archive.name} is not a complete .zip archive ({reason(error)}): pack or upload it again."
        ) from error


def unpack(archive: Path, out: Path, options: PhotosOptions) -> list[RejectedPhoto]:
    """Write the archive's photos and its flight log below `out`, and empty files for its other members.

    The empty files keep "no photos among N files" true without spending disk on what is never read. Of members with the
    same name each gets one of its own.

    Returns:
        Photos that were left out: their names cannot be stored, or they are too large.

    Raises:
        PhotosError: the archive is corrupt, encrypted, has a member that would land outside of `out`, or is larger
            unpacked than the options allow; or several members could be the flight log.
        DiskFullError: the disk has no room for the unpacked files.
        OSError: `out` cannot be written.
    """
    with open_archive(archive) as opened:
        members = checked_members(archive, opened, options)
        if members.rejected:
            require_photos(archive, members)
        log = log_among(options.flight_log, [name for _, name in members.files])
        wanted = {name for _, name in members.photos} | ({log} if log else set())
        needed = sum(member.file_size for member, name in members.files if name in wanted)
        if needed > free_bytes(out):
            raise disk_full(out, needed)
        left_bytes = int(options.max_archive_gib * GIB)
        for member, name in members.files:
            target = below(out, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in wanted:
                left_bytes -= _unpack_member(opened, member, target, left_bytes, options)
            else:
                target.touch()
    return list(members.rejected)


def check_archive(archive: Path, options: PhotosOptions) -> None:
    """Check the archive's directory, without unpacking anything.

    Raises:
        PhotosError: the archive is corrupt, encrypted, unsafe, or larger than the options allow; or it holds no photo.
    """
    try:
        with open_archive(archive) as opened:
            require_photos(archive, checked_members(archive, opened, options))
    except OSError as error:
        raise PhotosError(f"{archive.name} cannot be read ({error.strerror}): give permission to read it.") from error


def require_photos(archive: Path, members: Members) -> None:
    """Raise PhotosError for an archive without a photo."""
    if members.photos:
        return
    if members.rejected:
        first = members.rejected[0]
        raise PhotosError(f"No photo in {archive.name} can be used; {first.name}: {first.reason}.")
    names = [name for _, name in members.files]
    raise PhotosError(no_photos(f"{len(names)} files in {archive.name}", names))


def checked_members(archive: Path, opened: zipfile.ZipFile, options: PhotosOptions) -> Members:
    """Return the archive's files. Raises PhotosError if its directory shows that it is unsafe."""
    members = [member for member in opened.infolist() if not member.filename.endswith("/")]
    if len(members) > options.max_archive_members:
        raise PhotosError(
            f"{archive.name} holds {len(members)} files, the limit is {options.max_archive_members}: "
            "split it, or raise photos.max_archive_members."
        )
    for member in members:
        _require_harmless(archive, member, options)
    declared = sum(member.file_size for member in members)
    if declared > options.max_archive_gib * GIB:
        raise PhotosError(
            f"{archive.name} unpacks to {declared / GIB:.1f} GiB, the limit is {options.max_archive_gib:g} GiB: "
            "split it, or raise photos.max_archive_gib."
        )
    if _is_bomb(declared, sum(member.compress_size for member in members), options):
        raise _bomb(archive.name, "it", options)
    return _named(archive, opened, members)


def _require_harmless(archive: Path, member: zipfile.ZipInfo, options: PhotosOptions) -> None:
    name = shown(member.filename)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise PhotosError(f"{archive.name} is unsafe: its member {name} is a symbolic link.")
    if member.flag_bits & 0x1:
        raise PhotosError(f"{archive.name} is encrypted: pack it again without a password.")
    if member.compress_type == zipfile.ZIP_BZIP2:  # zipfile unpacks 4 kB of it at once, to gigabytes
        raise PhotosError(
            f"{archive.name} cannot be unpacked in bounded memory, as its member {name} is packed by bzip2: pack it "
            "again as an ordinary .zip."
        )
    if _is_bomb(member.file_size, member.compress_size, options):
        raise _bomb(archive.name, f"its member {name}", options)


def _named(archive: Path, opened: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> Members:
    """Members with names of their own; photos that do no harm but cannot be unpacked are apart."""
    taken = TakenNames()
    photos: list[tuple[zipfile.ZipInfo, str]] = []
    others: list[tuple[zipfile.ZipInfo, str]] = []
    rejected: list[RejectedPhoto] = []
    for member in members:
        written = storable(_written_name(member))
        posix = written.replace("\\", "/")
        is_photo = is_photo_name(posix) or (may_hide_photo(posix) and _sniffed(opened, member))
        try:
            if is_photo:
                require_photo_size(member.file_size)
            (photos if is_photo else others).append((member, taken.take(written)))
        except (ImageError, UnstorableNameError) as error:
            if is_photo:
                rejected.append(RejectedPhoto(name=shown(written).strip("'"), reason=str(error).removesuffix(".")))
        except UnsafeNameError as error:
            raise PhotosError(f"{archive.name} is unsafe: {error} Pack it again without that file.") from error
    return Members(tuple(photos), tuple(others), tuple(rejected))


def _written_name(member: zipfile.ZipInfo) -> str:
    """The member's name. Many programs write UTF-8 without saying so, and zipfile reads that as code page 437."""
    if not member.flag_bits & 0x800:
        try:
            return member.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return member.filename


def _sniffed(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    try:
        with opened.open(member) as file:
            return begins_like_photo(file.read(SNIFFED_BYTES))
    except (*DAMAGED_ZIP, OSError):  # it is reported if it is a photo that is read
        return False


def _unpack_member(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left_bytes: int, options: PhotosOptions
) -> int:
    """Write one member and return its size in bytes; stop as soon as it grows past a limit."""
    archive = Path(opened.filename or "").name
    written = 0
    with opened.open(member) as source, target.open("wb") as sink:
        while chunk := source.read(CHUNK_BYTES):
            written += len(chunk)
            if written > left_bytes:
                raise PhotosError(
                    f"{archive} unpacks to more than {options.max_archive_gib:g} GiB although it declares less: "
                    "split it, or raise photos.max_archive_gib."
                )
            if _is_bomb(written, member.compress_size, options):
                raise _bomb(archive, f"its member {shown(member.filename)}", options)
            sink.write(chunk)
    return written


def _is_bomb(unpacked_bytes: int, packed_bytes: int, options: PhotosOptions) -> bool:
    return unpacked_bytes > max(RATIO_FREE_BYTES, options.max_archive_ratio * packed_bytes)


def _bomb(archive: str, what: str, options: PhotosOptions) -> PhotosError:
    return PhotosError(
        f"{archive} looks like a zip bomb: {what} unpacks to more than {options.max_archive_ratio:g} times its "
        "compressed size; raise photos.max_archive_ratio if it is meant."
    )
