"""Unpacking a .zip that a stranger may have made.

All members are checked before anything is written; sizes are counted while reading, because headers can lie.
"""

import stat
import zipfile
from pathlib import Path

from tasks.core.errors import PhotosError, UnsafeNameError
from tasks.core.photos.files import is_photo_name
from tasks.core.photos.flight_log import log_among
from tasks.core.photos.options import PhotosOptions
from tasks.core.safe_names import TakenNames, below, reason, safe_name, shown
from tasks.core.zip_errors import DAMAGED_ZIP

CHUNK_BYTES = 1 << 20
RATIO_FREE_BYTES = 10 << 20  # below this size a member's ratio does no harm, and flat test pictures compress well
GIB = 1 << 30


def unpack(archive: Path, out: Path, options: PhotosOptions) -> None:
    """Write the archive's photos and its flight log below `out`, and empty files for its other members.

    The empty files keep "no photos among N files" true without spending disk on what is never read. Of members with the
    same name each gets one of its own.

    Raises:
        PhotosError: the archive is corrupt, encrypted, has a member that would land outside of `out`, or is larger
            unpacked than the options allow; or several members could be the flight log.
        OSError: `out` cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked_members(archive, opened, options)
            log = log_among(options.flight_log, [name for _, name in members])
            left_bytes = int(options.max_archive_gib * GIB)
            taken = TakenNames()
            for member, name in members:
                target = below(out, taken.take(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                if is_photo_name(name) or name == log:
                    left_bytes -= _unpack_member(opened, member, target, left_bytes, options)
                else:
                    target.touch()
    except DAMAGED_ZIP as error:
        raise unreadable(archive, error) from error
    except OSError as error:
        if error.errno is not None:  # the system's word of the disk, not bz2's of the archive
            raise
        raise unreadable(archive, error) from error


def member_name(archive: Path, member: zipfile.ZipInfo) -> str:
    """A member's path below the folder that the archive is unpacked to. Raises PhotosError."""
    try:
        return safe_name(member.filename)
    except UnsafeNameError as error:
        raise PhotosError(f"{archive.name} is unsafe: {error} Pack it again without that file.") from error


def check_archive(archive: Path, options: PhotosOptions) -> None:
    """Check what the archive's directory says, without unpacking anything.

    Raises:
        PhotosError: the archive is corrupt, encrypted, unsafe, or larger than the options allow; or it holds no photo.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked_members(archive, opened, options)
    except DAMAGED_ZIP as error:
        raise unreadable(archive, error) from error
    except OSError as error:
        raise PhotosError(f"{archive.name} cannot be read ({error.strerror}): give permission to read it.") from error
    if not any(is_photo_name(name) for _, name in members):
        raise PhotosError(
            f"No photos among {len(members)} files in {archive.name}: give JPEG, PNG, HEIC, WebP or TIFF in it."
        )


def unreadable(archive: Path, error: Exception) -> PhotosError:
    """The error for one of DAMAGED_ZIP."""
    if isinstance(error, UnicodeDecodeError):
        return PhotosError(f"{archive.name} holds a file name that is not valid {error.encoding}: pack it again.")
    return PhotosError(f"{archive.name} is not a complete .zip archive ({reason(error)}): pack or upload it again.")


def _checked_members(
    archive: Path, opened: zipfile.ZipFile, options: PhotosOptions
) -> list[tuple[zipfile.ZipInfo, str]]:
    """The archive's files with their safe names; refuses what its directory already shows to be unsafe."""
    members = [member for member in opened.infolist() if not member.filename.endswith("/")]
    if len(members) > options.max_archive_members:
        raise PhotosError(
            f"{archive.name} holds {len(members)} files, the limit is {options.max_archive_members}: "
            "split it, or raise photos.max_archive_members."
        )
    for member in members:
        name = shown(member.filename)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise PhotosError(f"{archive.name} is unsafe: its member {name} is a symbolic link.")
        if member.flag_bits & 0x1:
            raise PhotosError(f"{archive.name} is encrypted: pack it again without a password.")
        if member.file_size > RATIO_FREE_BYTES and member.file_size > options.max_archive_ratio * member.compress_size:
            raise _bomb(archive.name, member.filename, options)
    declared = sum(member.file_size for member in members)
    if declared > options.max_archive_gib * GIB:
        raise PhotosError(
            f"{archive.name} unpacks to {declared / GIB:.1f} GiB, the limit is {options.max_archive_gib:g} GiB: "
            "split it, or raise photos.max_archive_gib."
        )
    return [(member, member_name(archive, member)) for member in members]


def _unpack_member(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left_bytes: int, options: PhotosOptions
) -> int:
    """Write one member and return its size in bytes; stop as soon as it grows past a limit."""
    written = 0
    with opened.open(member) as source, target.open("wb") as sink:
        while chunk := source.read(CHUNK_BYTES):
            written += len(chunk)
            if written > left_bytes:
                raise PhotosError(
                    f"{Path(opened.filename or '').name} unpacks to more than {options.max_archive_gib:g} GiB "
                    "although it declares less: split it, or raise photos.max_archive_gib."
                )
            if written > max(RATIO_FREE_BYTES, options.max_archive_ratio * member.compress_size):
                raise _bomb(Path(opened.filename or "").name, member.filename, options)
            sink.write(chunk)
    return written


def _bomb(archive: str, member: str, options: PhotosOptions) -> PhotosError:
    return PhotosError(
        f"{archive} looks like a zip bomb: its member {shown(member)} unpacks to more than "
        f"{options.max_archive_ratio:g} times its compressed size; raise photos.max_archive_ratio if it is meant."
    )
