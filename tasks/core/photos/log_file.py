"""A flight log as lines and cells: a regular file of bounded size, whose content no message repeats.

The option that names it may come from a stranger, and the name may be that of any file which the process can read.
"""

import csv
import io
import stat
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.safe_names import shown

MOST_LOG_BYTES = 64 * 2**20  # an hour of 100 lines a second of 150 bytes each is 54 MB
LONGEST_LINE = 65_536  # characters; logs with every value of a flight controller have some thousand


def require_log_size(name: str, size_bytes: int) -> None:
    """Raise PhotosError for a flight log that is too large to be read."""
    if size_bytes > MOST_LOG_BYTES:
        raise PhotosError(
            f"The flight log {shown(name)} has more than {MOST_LOG_BYTES / 2**20:.0f} MiB: keep its columns of time, "
            "latitude, longitude and altitude, and the lines of this flight."
        )


def require_log_file(path: Path) -> None:
    """Raise PhotosError for a path that is no regular file, or a file that is too large to be read."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise PhotosError(f"The flight log {shown(path.name)} is no regular file: give a CSV file.")
    require_log_size(path.name, found.st_size)


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, and the number of the line in the file where the row begins.

    Blank lines and those that begin with `#` are left out. The delimiter is the one of `,`, `;` and a tab that the
    first line has most of.

    Raises:
        PhotosError: the file is no regular one, cannot be read, is too large, not in UTF-8 or no CSV.
    """
    require_log_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_LOG_BYTES + 1)  # files of the system say that they have 0 bytes
    except OSError as error:
        raise _unreadable(path, error) from None
    require_log_size(path.name, len(content))
    begun: list[int] = []  # numbers of the lines that the next row is made of
    lines = _kept_lines(path, content, begun)
    try:
        first = next(lines, "")
        for row in csv.reader(chain([first], lines) if first else (), delimiter=max(",;\t", key=first.count)):
            yield begun[0], row
            begun.clear()
    except UnicodeDecodeError:
        raise PhotosError(f"The flight log {shown(path.name)} is not in UTF-8: give a CSV file in UTF-8.") from None
    except csv.Error:
        where = f" near line {begun[-1]}" if begun else ""
        raise PhotosError(f"The flight log {shown(path.name)} is no CSV file{where}: export it again.") from None


def _kept_lines(path: Path, content: bytes, begun: list[int]) -> Iterator[str]:
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    number = 0
    while line := text.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise PhotosError(
                f"{shown(path.name)}, line {number}: it has more than {LONGEST_LINE:,} characters, so this is no "
                "flight log. Give a CSV file with a line for each place."
            )
        if line.strip() and not line.startswith("#"):
            begun.append(number)
            yield line


def _unreadable(path: Path, error: OSError | ValueError) -> PhotosError:
    reason = (error.strerror if isinstance(error, OSError) else None) or "no such name can exist"
    return PhotosError(f"The flight log {shown(path.name)} cannot be read ({reason}): give a CSV file in UTF-8.")
