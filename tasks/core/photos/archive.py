"""Unpacking a .zip that a stranger may have made.

All members are checked before anything is written; sizes are counted while reading, because headers can lie.
"""

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from tasks.core.errors import PhotosError
from tasks.core.photos.files import is_photo_name
from tasks.core.photos.options import PhotosOptions

CHUNK_BYTES = 1 << 20
RATIO_FREE_BYTES = 10 << 20  # below this size a member's ratio does no harm, and flat test pictures compress well
GIB = 1 << 30
# What zipfile raises while it reads what is no whole archive.
UNREADABLE_ARCHIVE = (
    zipfile.BadZipFile,  # its directory, a member's header, or a member's checksum is wrong
    zlib.error,  # a member's compressed bytes are
    EOFError,  # a member ends too early
    NotImplementedError,  # packed by a method that zipfile does not know
)


def unpack(archive: Path, out: Path, options: PhotosOptions) -> None:
    """Write the archive's members that are offered as photos below `out`, and empty files for its other members.

    The empty files keep "no photos among N files" true without spending disk on what nobody will read.

    Raises:
        PhotosError: the archive is corrupt, encrypted, has a member that would land outside of `out`, or is larger
            unpacked than the options allow.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check_members(archive, opened.infolist(), options)
            left_bytes = int(options.max_archive_gib * GIB)
            for member in members:
                target = out / member.filename.replace("\\", "/")
                target.parent.mkdir(parents=True, exist_ok=True)
                if is_photo_name(member.filename):
                    left_bytes -= _unpack_member(opened, member, target, left_bytes, options)
                else:
                    target.touch()
    except UNREADABLE_ARCHIVE as error:
        raise unreadable(archive, error) from error
    except OSError as error:
        raise PhotosError(f"{archive.name} cannot be unpacked: {error}.") from error


def check_archive(archive: Path, options: PhotosOptions) -> None:
    """Check what the archive's directory says, without unpacking anything.

    Raises:
        PhotosError: as `unpack` raises for its members; or none of them is offered as a photo.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except UNREADABLE_ARCHIVE as error:
        raise unreadable(archive, error) from error
    except OSError as error:
        raise PhotosError(f"{archive.name} cannot be read ({error.strerror}).") from error
    _check_members(archive, members, options)
    files = [member.filename for member in members if not member.is_dir()]
    if not any(is_photo_name(name) for name in files):
        raise PhotosError(
            f"No photos among {len(files)} files in {archive.name}: give JPEG, PNG, HEIC, WebP or TIFF in it."
        )


def unreadable(archive: Path, error: Exception) -> PhotosError:
    """What to say of one of UNREADABLE_ARCHIVE."""
    return PhotosError(f"{archive.name} is not a complete .zip archive ({error}): pack or upload it again.")


def _check_members(archive: Path, members: list[zipfile.ZipInfo], options: PhotosOptions) -> None:
    """Refuse what the directory of the archive already shows to be unsafe."""
    if len(members) > options.max_archive_members:
        raise PhotosError(
            f"{archive.name} holds {len(members)} files, the limit is {options.max_archive_members}: "
            "split it, or raise photos.max_archive_members."
        )
    for member in members:
        name = member.filename
        if ".." in PurePosixPath(name.replace("\\", "/")).parts:
            raise PhotosError(f"{archive.name} is unsafe: its member {name!r} points outside of the archive.")
        if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or PureWindowsPath(name).is_absolute():
            raise PhotosError(f"{archive.name} is unsafe: its member {name!r} has an absolute path.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise PhotosError(f"{archive.name} is unsafe: its member {name!r} is a symbolic link.")
        if member.flag_bits & 0x1:
            raise PhotosError(f"{archive.name} is encrypted: pack it again without a password.")
        if member.file_size > RATIO_FREE_BYTES and member.file_size > options.max_archive_ratio * member.compress_size:
            raise _bomb(archive.name, name, options)
    declared = sum(member.file_size for member in members)
    if declared > options.max_archive_gib * GIB:
        raise PhotosError(
            f"{archive.name} unpacks to {declared / GIB:.1f} GiB, the limit is {options.max_archive_gib:g} GiB: "
            "split it, or raise photos.max_archive_gib."
        )


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
        f"{archive} looks like a zip bomb: its member {member!r} unpacks to more than {options.max_archive_ratio:g} "
        "times its compressed size; raise photos.max_archive_ratio if it is meant."
    )
