"""A flight log as a table: where the drone was, in WGS84 and metres, at what time or at which photo.

Units are read from headers (`altitude(ft)`, `altitude_m`) or values (`120 ft`), never guessed from how large the
numbers are.
"""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from tasks.core.errors import PhotosError
from tasks.core.local_path import local_path
from tasks.core.photos.files import is_hidden
from tasks.core.photoset import Gps
from tasks.core.safe_names import shown

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
HEADER = re.compile(r"^\s*(?P<name>[^(\[]*?)\s*(?:[(\[]\s*(?P<unit>[^)\]]*?)\s*[)\]])?\s*$")
VALUE = re.compile(r"^\s*(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(?P<unit>[A-Za-z]*)\s*$")
TIME_FORMATS = ("%Y:%m:%d %H:%M:%S", "%Y:%m:%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S")


@dataclass(frozen=True)
class LogRow:
    """One line of the log. `time` is in seconds since 1970, by the log's own clock; None where the log has no times."""

    place: Gps
    time: float | None
    utc: bool = False  # whether that clock is said to be UTC


@dataclass(frozen=True)
class _Column:
    header: str
    index: int
    unit: str


def read_flight_log(path: Path) -> tuple[LogRow, ...]:
    """The rows that have a position, in the file's order; rows without a fix are left out.

    Raises:
        PhotosError: the file cannot be read, a column is missing or there are several, a unit is not said or not
            known, or a value is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            numbered = [
                (number, line)
                for number, line in enumerate(file.read().splitlines(), start=1)
                if line.strip() and not line.startswith("#")
            ]
    except (OSError, UnicodeDecodeError) as error:
        raise PhotosError(f"The flight log {path} cannot be read ({error}): give a CSV file in UTF-8.") from None
    if len(numbered) < 2:
        raise PhotosError(
            f"The flight log {path.name} has {len(numbered)} lines: give a header and a line for each place."
        )
    (_, headers), *rows = _rows(path, numbered)
    latitude = _one_column(path, headers, LATITUDE, "latitude")
    longitude = _one_column(path, headers, LONGITUDE, "longitude")
    altitude = _one_column(path, headers, ALTITUDE, "altitude")
    for column in (latitude, longitude):
        if column.unit not in DEGREES:
            raise PhotosError(f"{path.name}: column {column.header!r} is in {column.unit!r}; give decimal degrees.")
    times = _columns(headers, TIME)
    clocked = [column for column in times if column.unit in CLOCKS]  # others count from the start of the flight
    if len(clocked) > 1:
        raise PhotosError(f"{path.name} has several times: {_named(clocked)}. Keep one of these columns.")
    read: list[LogRow] = []
    for number, row in rows:
        cells = [row[column.index] if column.index < len(row) else "" for column in (latitude, longitude, altitude)]
        if not all(cell.strip() for cell in cells):
            continue
        place = Gps(
            latitude_deg=_degrees(path, number, latitude, cells[0], 90),
            longitude_deg=_degrees(path, number, longitude, cells[1], 180),
            altitude_m=_meters(path, number, altitude, cells[2]),
        )
        if place.latitude_deg == 0 and place.longitude_deg == 0:  # no fix yet
            continue
        time, utc = _seconds(path, number, clocked[0], row) if clocked else (None, False)
        read.append(LogRow(place, time, utc))
    if not read:
        raise PhotosError(f"The flight log {path.name} has no line with latitude, longitude and altitude.")
    return tuple(read)


def log_on_machine(wanted: str) -> Path | None:
    """The flight log that photos.flight_log names by its path on this machine; None where it names no such path."""
    if not wanted:
        return None
    path = local_path(wanted)
    return path if path.is_absolute() or path.is_file() else None


def log_among(wanted: str, names: Sequence[str]) -> str | None:
    """Find the file of a capture that photos.flight_log names; None where there is none.

    That is the file of this path, else the only one whose path ends with it: archives often hold a single folder.

    Args:
        wanted: photos.flight_log; empty where there is no log.
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
            f"{len(ending)} files beside the photos could be the flight log {wanted}: {shown(ending[0])}, "
            f"{shown(ending[1])}. Give photos.flight_log the path of one of them."
        )
    return ending[0] if ending else None


def _rows(path: Path, numbered: Sequence[tuple[int, str]]) -> list[tuple[int, list[str]]]:
    """The cells of each row, and the number of the line in the file where the row begins."""
    lines = [line for _, line in numbered]
    reader = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count))
    rows: list[tuple[int, list[str]]] = []
    try:
        begin = 0
        for row in reader:
            rows.append((numbered[begin][0], row))
            begin = reader.line_num
    except csv.Error as error:
        raise PhotosError(f"The flight log {path.name} is no CSV file ({error}): export it again.") from error
    return rows


def _columns(headers: Sequence[str], names: Sequence[str]) -> list[_Column]:
    found = []
    for index, header in enumerate(headers):
        match = HEADER.match(header)
        name, unit = (match["name"].lower(), (match["unit"] or "").lower()) if match else (header.lower(), "")
        pieces = [piece for piece in re.split(r"[\s_.:-]+", name) if piece]
        if not unit and len(pieces) > 1 and pieces[-1] in (*METERS, *DEGREES, *CLOCKS, "ms", "s", "sec", "seconds"):
            *pieces, unit = pieces
        if "".join(pieces) in names:
            found.append(_Column(header.strip(), index, unit))
    return found


def _one_column(path: Path, headers: Sequence[str], names: Sequence[str], what: str) -> _Column:
    found = _columns(headers, names)
    if len(found) == 1:
        return found[0]
    if found:
        raise PhotosError(f"{path.name}: {_named(found)} could all be the {what}. Keep one of these columns.")
    raise PhotosError(
        f"{path.name} has no column {what!r} (it has {', '.join(header.strip() for header in headers)}): rename "
        "the one that holds it."
    )


def _named(columns: Sequence[_Column]) -> str:
    return ", ".join(repr(column.header) for column in columns)


def _number(path: Path, line: int, column: _Column, cell: str) -> tuple[float, str]:
    match = VALUE.match(cell)
    try:
        number = float(match["number"]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number):
        raise PhotosError(f"{path.name}, line {line}: {cell!r} in column {column.header!r} is no number.")
    return number, match["unit"].lower()


def _degrees(path: Path, line: int, column: _Column, cell: str, limit: float) -> float:
    number, unit = _number(path, line, column, cell)
    if unit not in DEGREES:
        raise PhotosError(f"{path.name}, line {line}: {cell!r} in column {column.header!r}; give decimal degrees.")
    if abs(number) > limit:
        raise PhotosError(f"{path.name}, line {line}: {cell!r} in column {column.header!r} is beyond {limit:.0f}°.")
    return number


def _meters(path: Path, line: int, column: _Column, cell: str) -> float:
    number, unit = _number(path, line, column, cell)
    if unit and column.unit and METERS.get(unit) != METERS.get(column.unit):
        raise PhotosError(f"{path.name}, line {line}: {cell!r} in column {column.header!r} has two units.")
    unit = unit or column.unit
    if unit not in METERS:
        said = f"is in {unit!r}" if unit else "has no unit"
        raise PhotosError(
            f"{path.name}: column {column.header!r} {said}; name it 'altitude(m)' or 'altitude(ft)', whichever it is."
        )
    return number * METERS[unit]


def _seconds(path: Path, line: int, column: _Column, row: Sequence[str]) -> tuple[float, bool]:
    """Seconds since 1970, and whether they are of UTC."""
    cell = row[column.index].strip() if column.index < len(row) else ""
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
            f"{path.name}, line {line}: {cell!r} in column {column.header!r} is no date and time; give 2026-05-01 "
            "10:20:30, or name a column that counts from take-off 'time(s)' or 'time(ms)'."
        )
    return moment.replace(tzinfo=UTC).timestamp(), utc or column.unit in ("utc", "gmt")
