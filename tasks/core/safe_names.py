"""Untrusted file names, and the check whether they may be joined to a folder.

Such names come from COLMAP models, members of archives, listings of a bucket, manifests and stored scenes. Each of them
passes `safe_name` before it becomes part of a path, so that nothing is read or written outside of the folder. Messages
quote such names, and text of damaged files, only in printable form.
"""

import lzma
import re
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tasks.core.errors import UnsafeNameError, UnstorableNameError

MAX_KEY_BYTES = 1024  # S3's limit
MAX_NAME_BYTES = 900  # leaves room for the names of parent folders
WANTED_NAME_BYTES = MAX_NAME_BYTES - 16  # leaves room for -2, -3, … if a name is taken
MAX_PART_BYTES = 255  # the limit of nearly all file systems
SHOWN_CHARACTERS = 120
CONTROL = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and of line and paragraph ends
# Characters that reverse the direction of the text after them, so that "gpj.exe" reads as "exe.jpg".
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DRIVE = re.compile(r"[A-Za-z]:")

# Exceptions that zipfile raises for damaged archives. A damaged bz2 member raises a bare OSError beside them.
DAMAGED_ZIP = (
    zipfile.BadZipFile,  # the directory, a member's header or a checksum is wrong
    zlib.error,  # damaged deflate
    lzma.LZMAError,  # damaged LZMA
    EOFError,  # a member ends too early
    RuntimeError,  # encrypted, or (NotImplementedError) packed by an unknown method
    ValueError,  # a name that is not in its encoding (UnicodeDecodeError), an offset outside of the file
)


def safe_name(name: str, at_most_bytes: int = MAX_NAME_BYTES) -> str:
    """Return the name as a relative posix path that stays below any folder that it is joined to.

    Backslashes count as slashes; empty parts and `.` are left out. Raises UnsafeNameError with the reason, and
    UnstorableNameError for a name that stays inside but cannot be stored.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if reason := _danger(name, parts):
        raise UnsafeNameError(f"The file name {shown(name)} {reason}.")
    path = "/".join(parts)
    if reason := _fault(path, at_most_bytes):
        raise UnstorableNameError(f"The file name {shown(name)} {reason}.")
    return path


def below(folder: Path, name: str) -> Path:
    """Return the path of a name below a folder. Raises UnsafeNameError if the name leads out of it."""
    return folder / safe_name(name)


def shown(name: str) -> str:
    """Return a name in quotes for a message, cut if it is very long."""
    text = printable(name)
    return f"'{text}'" if len(text) <= SHOWN_CHARACTERS else f"'{text[:SHOWN_CHARACTERS]}…'"


def reason(error: BaseException) -> str:
    """Return a library's error about a file, for a message. It is cut, because decoders may quote very many bytes."""
    text = printable(str(error).strip() or type(error).__name__)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def storable(name: str) -> str:
    """Return a name with a replacement character for each byte that is not UTF-8, and each control character."""
    return "".join("\ufffd" if unicodedata.category(character) in (*CONTROL, "Cs") else character for character in name)


def printable(text: str) -> str:
    """Escape control characters, changes of direction, and bytes that were not UTF-8."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in (*CONTROL, "Cs") or character in DIRECTIONS
        else character
        for character in text
    )


def printable_lines(text: str) -> str:
    """As `printable`, but line ends and tabs stay, for terminals and logs."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _danger(name: str, parts: list[str]) -> str | None:
    if name.startswith(("/", "\\")):
        return "is an absolute path"
    if ".." in parts:
        return "leads out of its folder"
    if not parts:
        return "is empty"
    return "names a drive" if _DRIVE.match(parts[0]) else None


def _fault(path: str, at_most_bytes: int) -> str | None:
    if any(unicodedata.category(character) in CONTROL for character in path):
        return "holds control characters"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if len(encoded) > at_most_bytes:
        return f"is longer than {at_most_bytes} bytes"
    if max(len(part) for part in encoded.split(b"/")) > MAX_PART_BYTES:
        return f"has a part of more than {MAX_PART_BYTES} bytes"
    return None


class TakenNames:
    """Unique names of files below one folder, even on file systems that ignore letter case."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._counts: dict[str, int] = {}  # by wanted name; 20,000 equal names would otherwise take hours

    def take(self, wanted: str) -> str:
        """Return the name, or one with -2, -3, … if a file or folder has it already. Raises UnsafeNameError."""
        first = name = PurePosixPath(safe_name(wanted, WANTED_NAME_BYTES))
        count = self._counts.get(_folded(first), 1)
        while not self._is_free(name):
            count += 1
            name = self._renamed(first, count)
        self._counts[_folded(first)] = count
        self._files.add(_folded(name))
        self._folders.update(_folded(folder) for folder in name.parents)
        return safe_name(name.as_posix())

    def _is_free(self, name: PurePosixPath) -> bool:
        folded = _folded(name)
        return (
            folded not in self._files
            and folded not in self._folders
            and not any(_folded(folder) in self._files for folder in name.parents)
        )

    def _renamed(self, name: PurePosixPath, count: int) -> PurePosixPath:
        """Append the number to the first folder that has a file's name, or else to the file's own name."""
        for folder in reversed(name.parents[:-1]):
            if _folded(folder) in self._files:
                return folder.with_name(_shortened(folder.name, f"-{count}")) / name.relative_to(folder)
        return name.with_name(_shortened(name.stem, f"-{count}{name.suffix}"))


def _shortened(stem: str, ending: str) -> str:
    """Join both, with the stem cut to the limit of a path's part."""
    room = max(MAX_PART_BYTES - len(ending.encode()), 0)
    return stem.encode()[:room].decode(errors="ignore") + ending


def _folded(name: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.as_posix()).casefold())
