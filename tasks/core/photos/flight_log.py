"""Read a flight log: the drone's positions, in WGS84 and metres, by time or by photo.

Units are read from headers (`altitude(ft)`, `altitude_m`) or values (`120 ft`), never guessed from the size of the
numbers.

The option that names the log may come from a stranger, and may name any file that the process can read. So only a
regular file of bounded size is read, and messages refer to columns and lines by number and never quote them.
"""

import csv
import io
import math
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path, PurePosixPath

from tasks.core.errors import PhotosError
from tasks.core.paths import local_path
from tasks.core.photos.files import file_names, is_hidden
from tasks.core.photoset import ALTITUDES_M, Gps
from tasks.core.safe_names import below, shown

MOST_LOG_BYTES = 64 * 2**20  # an hour at 100 lines a second, 150 bytes each, is 54 MB
LONGEST_LINE = 65_536  # characters; logs with every value of a flight controller have a few thousand

METERS = {"m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0} | dict.fromkeys(
    ("ft", "foot", "feet"), 0.3048
)
DEGREES = ("deg", "degree", "degrees", "")
LATITUDE = ("latitude", "lat", "gpslatitude", "gpslat")
LONGITUDE = ("longitude", "lon", "lng", "long", "gpslongitude", "gpslon")
ALTITUDE = (
    *("altitude", "alt", "gpsaltitude", "gpsalt", "absolutealtitude", "absalt", "elevation"),
    *("altitudeabovesealevel", "altitudeamsl", "altitudemsl"),
)
TIME = ("time", "datetime", "timestamp", "dateandtime", "takenat")
CLOCKS = ("utc", "gmt", "local", "")
VALUE = re.compile(r"(?P<number>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(?P<unit>[A-Za-z]*)")
LONGEST_VALUE = 100  # characters; no number, unit or time is that long
MOST_PLACES = 500_000  # 14 hours of ten lines a second
NAMED_COLUMNS = 5
TIME_FORMATS = ("%Y:%m:%d %H:%M:%S", "%Y:%m:%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S")


def require_log_size(name: str, size_bytes: int) -> None:
    """Raise PhotosError for a flight log that is too large to be read."""
    if size_bytes > MOST_LOG_BYTES:
        raise PhotosError(
            f"The flight log {shown(name)} has more than {MOST_LOG_BYTES / 2**20:.0f} MiB: keep its columns of time, "
            "latitude, longitude and altitude, and the lines of this flight."
        )


def require_log_file(path: Path) -> None:
    """Raise PhotosError unless the path is a regular file that is small enough to be read."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise PhotosError(f"The flight log {shown(path.name)} is no regular file: give a CSV file.")
    require_log_size(path.name, found.st_size)


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row: the number of the line in the file where it begins, and its cells.

    Blank lines and lines that begin with `#` are left out. The delimiter is `,`, `;` or a tab, whichever is most
    frequent in the first line.

    Raises:
        PhotosError: the file is not a regular one, cannot be read, is too large, or is not a CSV file in UTF-8.
    """
    require_log_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(MOST_LOG_BYTES + 1)  # files of /proc and the like claim a size of 0 bytes
    except OSError as error:
        raise _unreadable(path, error) from None
    require_log_size(path.name, len(content))
    begun: list[int] = []  # numbers of the lines that belong to the next row
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


@dataclass(frozen=True)
class LogRow:
    """One line of the log. `time` is in seconds since 1970 by the log's own clock, or None if the log has no times."""

    place: Gps
    time: float | None
    utc: bool = False  # whether the log says that this clock is UTC


@dataclass(frozen=True)
class _Column:
    what: str  # latitude, longitude, altitude or time
    index: int
    unit: str

    def __str__(self) -> str:
        return f"column {self.index + 1} ({self.what})"


def read_flight_log(path: Path) -> tuple[LogRow, ...]:
    """The rows with a position, in the file's order; rows without a fix are left out.

    Raises:
        PhotosError: the file cannot be read or is too large, a column is missing or ambiguous, a unit is missing or
            unknown, a value is not a number or an impossible one, or there are too many places.
    """
    log = shown(path.name)
    numbered = read_rows(path)
    _, headers = next(numbered, (0, []))
    if not headers:
        raise PhotosError(f"The flight log {log} is empty: give a header and a line for each place.")
    latitude = _one_column(log, headers, LATITUDE, "latitude")
    longitude = _one_column(log, headers, LONGITUDE, "longitude")
    altitude = _one_column(log, headers, ALTITUDE, "altitude")
    for column in (latitude, longitude):
        if column.unit not in DEGREES:
            raise PhotosError(f"{log}: {column} is in another unit; give decimal degrees.")
    times = _columns(headers, TIME, "time")
    clocked = [column for column in times if column.unit in CLOCKS]  # others count from the start of the flight
    if len(clocked) > 1:
        raise PhotosError(f"{log} has several times: {_named(clocked)}. Keep one of these columns.")
    read: list[LogRow] = []
    for number, row in numbered:
        cells = [row[column.index] if column.index < len(row) else "" for column in (latitude, longitude, altitude)]
        if not all(cell.strip() for cell in cells):
            continue
        place = Gps(
            latitude_deg=_degrees(log, number, latitude, cells[0], 90),
            longitude_deg=_degrees(log, number, longitude, cells[1], 180),
            altitude_m=_meters(log, number, altitude, cells[2]),
        )
        if place.latitude_deg == 0 and place.longitude_deg == 0:  # no fix yet
            continue
        if len(read) == MOST_PLACES:
            raise PhotosError(f"{log} has more than {MOST_PLACES:,} places: keep the lines of this flight.")
        time, utc = _seconds(log, number, clocked[0], row) if clocked else (None, False)
        read.append(LogRow(place, time, utc))
    if not read:
        raise PhotosError(f"The flight log {log} has no line with latitude, longitude and altitude.")
    return tuple(read)


def log_on_machine(wanted: str, *, relative: bool) -> Path | None:
    """The flight log, if photos.flight_log is a path on this machine; otherwise None.

    `relative`: whether a path relative to the working folder counts. Strangers must not be able to choose one.

    Raises PhotosError for a log that is not a regular file or is too large to be read.
    """
    if not wanted:
        return None
    path = local_path(wanted)
    if not relative and not path.is_absolute():
        return None
    try:
        exists = path.exists()
    except OSError:  # the name is too long, or a folder may not be entered
        exists = False
    if exists:
        require_log_file(path)
    return path.absolute() if exists or path.is_absolute() else None


def find_log(wanted: str, folder: Path) -> Path:
    """The path of the flight log: an absolute one, or that of a file in the photos' folder. It need not exist.

    Raises PhotosError as `log_among` and `log_on_machine` do, UnsafeNameError for a name that leads out of the folder.
    """
    on_machine = log_on_machine(wanted, relative=False)
    return on_machine or below(folder, log_among(wanted, file_names(folder)) or wanted)


def log_among(wanted: str, names: Sequence[str]) -> str | None:
    """Find the file of a capture that photos.flight_log names; None if there is none.

    It is the file with this path, or else the only one whose path ends with it: archives often contain a single folder.

    Args:
        wanted: photos.flight_log; empty if there is no log.
        names: posix paths below the capture.

    Raises:
        PhotosError: the paths of several files end with it.
    """
    parts = PurePosixPath(wanted).parts
    if not parts or PurePosixPath(wanted).is_absolute():
        return None
    if wanted in names:
        return wanted
    ending = [name for name in names if PurePosixPath(name).parts[-len(parts) :] == parts and not is_hidden(name)]
    if len(ending) > 1:
        raise PhotosError(
            f"{len(ending)} files beside the photos could be the flight log {shown(wanted)}: {shown(ending[0])}, "
            f"{shown(ending[1])}. Give photos.flight_log the path of one of them."
        )
    return ending[0] if ending else None


def _split_header(header: str) -> tuple[str, str]:
    """Name and unit, in lower case, of `Altitude (ft)`, `altitude[ft]` or `altitude`."""
    text = header.strip().lower()
    opened = min((text.index(bracket) for bracket in "([" if bracket in text), default=len(text))
    unit = text[opened + 1 : -1]
    if text[opened:] and text[-1] in ")]" and not any(bracket in unit for bracket in ")]"):
        return text[:opened].strip(), unit.strip()
    return text, ""


def _columns(headers: Sequence[str], names: Sequence[str], what: str) -> list[_Column]:
    found = []
    for index, header in enumerate(headers):
        name, unit = _split_header(header)
        pieces = [piece for piece in re.split(r"[\s_.:-]+", name) if piece]
        if not unit and len(pieces) > 1 and pieces[-1] in (*METERS, *DEGREES, *CLOCKS, "ms", "s", "sec", "seconds"):
            *pieces, unit = pieces
        if "".join(pieces) in names:
            found.append(_Column(what, index, unit))
    return found


def _one_column(log: str, headers: Sequence[str], names: Sequence[str], what: str) -> _Column:
    found = _columns(headers, names, what)
    if len(found) == 1:
        return found[0]
    if found:
        raise PhotosError(f"{log}: {_named(found)} could all be the {what}. Keep one of these columns.")
    raise PhotosError(
        f"None of the {len(headers)} columns of {log} is the {what}: give a CSV file whose first line names its "
        "columns, 'latitude', 'longitude' and 'altitude(m)' or 'altitude(ft)' among them."
    )


def _named(columns: Sequence[_Column]) -> str:
    named = ", ".join(str(column) for column in columns[:NAMED_COLUMNS])
    return named + (f" and {len(columns) - NAMED_COLUMNS} more" if len(columns) > NAMED_COLUMNS else "")


def _number(log: str, line: int, column: _Column, cell: str) -> tuple[float, str]:
    match = VALUE.fullmatch(cell.strip()) if len(cell) <= LONGEST_VALUE else None
    try:
        number = float(match["number"]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise PhotosError(f"{log}, line {line}: {column} holds no number.")
    return number, match["unit"].lower()


def _degrees(log: str, line: int, column: _Column, cell: str, limit: float) -> float:
    number, unit = _number(log, line, column, cell)
    if unit not in DEGREES:
        raise PhotosError(f"{log}, line {line}: {column} is in another unit; give decimal degrees.")
    if abs(number) > limit:
        raise PhotosError(f"{log}, line {line}: {column} is beyond {limit:.0f}°.")
    return number


def _meters(log: str, line: int, column: _Column, cell: str) -> float:
    number, unit = _number(log, line, column, cell)
    if unit and column.unit and METERS.get(unit) != METERS.get(column.unit):
        raise PhotosError(f"{log}, line {line}: {column} has two units, of its header and of the value. Keep one.")
    unit = unit or column.unit
    if unit not in METERS:
        said = "is neither in metres nor in feet" if unit else "has no unit"
        raise PhotosError(f"{log}: {column} {said}; name it 'altitude(m)' or 'altitude(ft)', whichever it is.")
    meters = number * METERS[unit]
    lowest, highest = ALTITUDES_M
    if not lowest <= meters <= highest:
        raise PhotosError(
            f"{log}, line {line}: {column} is not between {lowest:,.0f} and {highest:,.0f} m: correct it or its unit."
        )
    return meters


def _seconds(log: str, line: int, column: _Column, row: Sequence[str]) -> tuple[float, bool]:
    """Seconds since 1970, and whether they are in UTC."""
    cell = row[column.index].strip()[: LONGEST_VALUE + 1] if column.index < len(row) else ""
    moment: datetime | None = None
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        for form in TIME_FORMATS:
            try:
                moment = datetime.strptime(cell, form)  # noqa: DTZ007 (the log's own clock)
                break
            except ValueError:
                continue
    utc = moment is not None and moment.tzinfo is not None
    if moment is not None and utc:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:  # before the calendar's first day or after its last
            moment = None
    if moment is None:
        raise PhotosError(
            f"{log}, line {line}: {column} holds no date and time; give 2026-05-01 10:20:30, or name a column that "
            "counts from take-off 'time(s)' or 'time(ms)'."
        )
    return moment.replace(tzinfo=UTC).timestamp(), utc or column.unit in ("utc", "gmt")
