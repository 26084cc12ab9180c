"""Flight logs: rows that are possible, or one short sentence that quotes nothing of the file."""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.photos.flight_log import read_flight_log
from tasks.core.photos.log_match import place_photos
from tasks.core.photoset import ALTITUDES_M, Gps, Photo

SUITE_ROUNDS = 800
LONGEST_MESSAGE = 700  # characters
SECRET = "Secr3t"
START = datetime(2026, 5, 1, 10, tzinfo=UTC)
HEADERS = {
    "latitude": ["latitude", "Lat", "GPS.Latitude", "latitude (deg)", "gps_lat"],
    "longitude": ["longitude", "lng", "GPS Longitude", "lon[deg]"],
    "altitude": ["altitude(m)", "Altitude [feet]", "alt_ft", "altitude", "absolute_altitude(m)", "elevation.m"],
    "time": ["time", "datetime(utc)", "timestamp(ms)", "Date and Time", "time(s)"],
}
FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y:%m:%d %H:%M:%S", "%Y/%m/%d %H:%M:%S")
CELLS = (
    *(
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "1e300",
        "1e-300",
        "-0",
        "0",
        "90",
        "-90.0",
        "91",
        "180",
        "181",
        "-20000",
        "99999",
    ),
    *("1,5", "1.2.3", "++1", "1e", "٣", "5 ft", "5 km", "5 ft ft", "0x10", "1_000", "9999-12-31T23:59:59-12:00"),
    *("0001-01-01 00:00:00+14:00", "2026-02-30 10:00:00", "2026-05-01 25:00:00", "now", "12.5", "=1+1", "'", '"'),
    *("\0", "\x1b[2J", "\u2028", "(", "[", ")", "(m", "m)", "altitude(m)", "#", "\r", "\n", "\ufeff", "_"),
)


def damage_log(chance: random.Random, folder: Path) -> None:
    """One round: a log of some lines, with cells, lines and bytes replaced."""
    path = folder / "log.csv"
    path.write_bytes(_damaged(chance, _table(chance)))
    try:
        rows = read_flight_log(path)
    except PhotosError as error:
        _require_short(error)
        _require_no_quote(error)
        return
    assert rows, "a log without a line"
    for row in rows:
        assert abs(row.place.latitude_deg) <= 90
        assert abs(row.place.longitude_deg) <= 180
        assert row.place.altitude_m is not None
        assert ALTITUDES_M[0] <= row.place.altitude_m <= ALTITUDES_M[1]
        assert row.time is None or math.isfinite(row.time)
    photos = _photos(chance, len(rows))
    try:
        placed, how = place_photos(photos, rows)
    except PhotosError as error:
        _require_short(error)
        return
    assert len(how) <= LONGEST_MESSAGE
    for photo in placed:
        if photo.gps is not None:
            assert abs(photo.gps.latitude_deg) <= 90
            assert abs(photo.gps.longitude_deg) <= 180 + 1e-9


ROUND = damage_log


def _require_short(error: PhotosError) -> None:
    if len(str(error)) > LONGEST_MESSAGE:
        raise AssertionError(f"a message of {len(str(error))} characters: {str(error)[:1000]!r}")


def _require_no_quote(error: PhotosError) -> None:
    if SECRET.lower() in str(error).lower() or not str(error).isprintable():
        raise AssertionError(f"a message that quotes the file: {str(error)!r}")


def _table(chance: random.Random) -> list[list[str]]:
    columns = ["latitude", "longitude", "altitude", *(["time"] if chance.random() < 0.7 else []), SECRET]
    chance.shuffle(columns)
    form = chance.choice(FORMATS)
    start = START + timedelta(hours=chance.randint(-14, 14))
    cells = {
        "latitude": lambda i: f"{47 + i * 1e-4:.6f}",
        "longitude": lambda i: f"{8 + i * 1e-4:.6f}",
        "altitude": lambda i: f"{100 + i}",
        "time": lambda i: (start + timedelta(seconds=2 * i)).strftime(form),
        SECRET: lambda i: f"{SECRET}{i}",
    }
    header = [chance.choice(HEADERS.get(column, [SECRET])) for column in columns]
    return [header, *([cells[column](i) for column in columns] for i in range(chance.randint(0, 40)))]


def _damaged(chance: random.Random, table: list[list[str]]) -> bytes:
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        row = table[0] if chance.random() < 0.4 else chance.choice(table)
        at = chance.randrange(len(row))
        row[at] = chance.choice(
            [
                chance.choice(CELLS),
                SECRET,
                row[at] + chance.choice(CELLS),
                chance.choice(CELLS) * chance.choice([1, 50, 2000, 30_000]),
                row[at] + " " * 30_000 + chance.choice(CELLS),
            ]
        )
    if chance.random() < 0.1:
        del table[chance.randrange(len(table))][0]
    delimiter = chance.choice(",;\t,,|")
    text = chance.choice(["\n", "\r\n", "\r"]).join(delimiter.join(row) for row in table)
    if chance.random() < 0.2:
        text = chance.choice(["# note\n\n", "\ufeff", "\n" * 50, f"{SECRET}\n", '"' + SECRET]) + text
    data = text.encode(chance.choice(["utf-8"] * 6 + ["utf-16", "latin-1"]), "replace")
    for _ in range(chance.choice([0, 0, 0, 1, 3])):
        at = chance.randrange(len(data) + 1)
        data = chance.choice([data[:at], data[:at] + chance.randbytes(2) + data[at + 2 :], data[:at] + data[at + 1 :]])
    return data


def _photos(chance: random.Random, rows: int) -> list[Photo]:
    start = START + timedelta(minutes=15 * chance.randint(-60, 60))
    timed, placed = chance.random() < 0.8, chance.random() < 0.4
    return [
        Photo(
            name=f"{i}.jpg",
            width=64,
            height=48,
            sha256="",
            taken_at=(start + timedelta(seconds=2.5 * i)).replace(tzinfo=None).isoformat() if timed else None,
            utc_offset_minutes=chance.choice([None, 0, 120]),
            gps=Gps(latitude_deg=47 + i * 1e-4, longitude_deg=8, altitude_m=0) if placed else None,
        )
        for i in range(chance.choice([rows, 3]))
    ]
