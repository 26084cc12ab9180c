"""File names that others chose, and the one decision whether they may be joined to a folder.

Such names come from COLMAP models, members of archives, listings of a bucket, manifests and stored scenes. Each of them
passes `safe_name` before it becomes part of a path, so that nothing is read or written outside of the folder. What
messages quote of them, and of damaged files, is made printable.
"""

import lzma
import re
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tasks.core.errors import UnsafeNameError, UnstorableNameError

MAX_KEY_BYTES = 1024  # S3's limit
MAX_NAME_BYTES = 900  # which leaves room for the folders that the name is put below
WANTED_NAME_BYTES = MAX_NAME_BYTES - 16  # which leaves room for -2, -3, … where a name is taken
MAX_PART_BYTES = 255  # what nearly all file systems take
SHOWN_CHARACTERS = 120
CONTROL = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and of line and paragraph ends
# Characters that turn the direction of the text after them, in which "gpj.exe" reads as "exe.jpg".
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
    """The name as a relative posix path that stays below any folder it is joined to.

    Backslashes count as slashes; empty parts and `.` are left out. Raises UnsafeNameError, which says why, and
    UnstorableNameError for a name that leads nowhere else.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if reason := _danger(name, parts):
        raise UnsafeNameError(f"The file name {shown(name)} {reason}.")
    path = "/".join(parts)
    if reason := _fault(path, at_most_bytes):
        raise UnstorableNameError(f"The file name {shown(name)} {reason}.")
    return path


def below(folder: Path, name: str) -> Path:
    """The path of a name below a folder. Raises UnsafeNameError where the name would lead out of it."""
    return folder / safe_name(name)


def shown(name: str) -> str:
    """A name in quotes for a message, cut where it is very long."""
    text = printable(name)
    return f"'{text}'" if len(text) <= SHOWN_CHARACTERS else f"'{text[:SHOWN_CHARACTERS]}…'"


def reason(error: BaseException) -> str:
    """A library's error about a file, for a message, cut: decoders quote the bytes they fail on, however many."""
    text = printable(str(error).strip() or type(error).__name__)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def printable(text: str) -> str:
    """The text with escapes for control characters, changes of direction, and bytes that were not UTF-8."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in (*CONTROL, "Cs") or character in DIRECTIONS
        else character
        for character in text
    )


def printable_lines(text: str) -> str:
    """As `printable`, but line ends and tabs stay: for terminals and logs."""
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
    """Names of files that fit side by side below one folder, also where letter case does not count."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._counts: dict[str, int] = {}  # by wanted name: 20,000 of the same one would be tried for hours

    def take(self, wanted: str) -> str:
        """The name, or one with -2, -3, … where a file or folder has it already. Raises UnsafeNameError."""
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
        """With the number behind the first folder that has a file's name, else behind the file's own."""
        for folder in reversed(name.parents[:-1]):
            if _folded(folder) in self._files:
                return folder.with_name(_shortened(folder.name, f"-{count}")) / name.relative_to(folder)
        return name.with_name(_shortened(name.stem, f"-{count}{name.suffix}"))


def _shortened(stem: str, ending: str) -> str:
    """Both, with as much of the stem as a part of a path may have."""
    room = max(MAX_PART_BYTES - len(ending.encode()), 0)
    return stem.encode()[:room].decode(errors="ignore") + ending


def _folded(name: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.as_posix()).casefold())
