"""Which place of a flight log belongs to which photo: by EXIF time, else by order."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import PhotosError
from tasks.core.photos.flight_log import LogRow
from tasks.core.photoset import Gps, Photo

LONGEST_GAP_SECONDS = 10.0  # between two lines of the log that a photo is placed between; a drone flies 150 m in it
NEAREST_SECONDS = 2.0  # from a photo to a single line
HOURS = range(-14, 15)  # that a camera's clock and the log's can be apart: EXIF times have no zone
MOST_SHARE = 0.5  # of the photos must lie in the log for a match by time to be believed


def place_photos(photos: Sequence[Photo], rows: Sequence[LogRow]) -> tuple[tuple[Photo, ...], str]:
    """The photos with the log's places instead of EXIF's, and a sentence that says how they were found.

    A photo that the log does not cover is left without a place: EXIF's altitude may count from another zero.

    Raises:
        PhotosError: neither times nor the number of lines match.
    """
    by_time = all(row.time is not None for row in rows) and all(photo.taken_at for photo in photos)
    if by_time:
        return _by_time(photos, sorted(rows, key=lambda row: row.time or 0.0))
    if len(rows) != len(photos):
        why = "the photos have no EXIF time" if rows[0].time is not None else "the log has no dates"
        raise PhotosError(
            f"The flight log has {len(rows)} places for {len(photos)} usable photos, and {why}, so it can only be "
            "matched by order: give one line for each photo, or a column 'datetime' and photos with EXIF times."
        )
    placed = tuple(photo.model_copy(update={"gps": row.place}) for photo, row in zip(photos, rows, strict=True))
    return placed, f"{len(placed)} photos placed by the order of the flight log"


def _by_time(photos: Sequence[Photo], rows: Sequence[LogRow]) -> tuple[tuple[Photo, ...], str]:
    times = np.array([row.time for row in rows], dtype=np.float64)
    taken = np.array([_seconds(photo) for photo in photos], dtype=np.float64)
    hours = _clock_offset(times, taken)
    taken = taken - 3600 * hours
    table = np.array(
        [(r.place.latitude_deg, r.place.longitude_deg, r.place.altitude_m) for r in rows], dtype=np.float64
    )
    placed = [
        photo.model_copy(update={"gps": _place_at(moment, times, table)})
        for photo, moment in zip(photos, taken, strict=True)
    ]
    found = sum(photo.gps is not None for photo in placed)
    clock = f"; the camera's clock is {hours:+d} h from the log's" if hours else ""
    return tuple(placed), f"{found} of {len(placed)} photos placed by their times in the flight log{clock}"


def _clock_offset(times: NDArray[np.float64], taken: NDArray[np.float64]) -> int:
    """Whole hours by which the camera is ahead. Raises PhotosError when none, or several, put the photos in the log."""

    def share(hours: int) -> float:
        moments = taken - 3600 * hours
        return float(np.mean((moments >= times[0] - NEAREST_SECONDS) & (moments <= times[-1] + NEAREST_SECONDS)))

    if share(0) >= MOST_SHARE:
        return 0
    fitting = [hours for hours in HOURS if share(hours) >= MOST_SHARE]
    if len(fitting) == 1:
        return fitting[0]
    span = f"the log runs from {_clock(times[0])} to {_clock(times[-1])}, "
    span += f"the photos from {_clock(taken.min())} to {_clock(taken.max())}"
    if not fitting:
        raise PhotosError(
            f"The flight log does not cover the photos: {span}, and no time zone brings them together. "
            "Give the log of this flight."
        )
    raise PhotosError(
        f"The flight log fits the photos at several time zones: {span}. Give the log's times as the camera's clock has "
        "them."
    )


def _place_at(moment: float, times: NDArray[np.float64], table: NDArray[np.float64]) -> Gps | None:
    after = int(np.searchsorted(times, moment))
    before = max(after - 1, 0)
    after = min(after, len(times) - 1)
    gap = times[after] - times[before]
    if times[before] <= moment <= times[after] and gap <= LONGEST_GAP_SECONDS:
        share = (moment - times[before]) / gap if gap > 0 else 0.0
        values = table[before] + share * (table[after] - table[before])
    else:
        nearest = before if abs(moment - times[before]) <= abs(moment - times[after]) else after
        if abs(moment - times[nearest]) > NEAREST_SECONDS:
            return None
        values = table[nearest]
    latitude, longitude, altitude = (float(value) for value in values)
    return Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=altitude)


def _seconds(photo: Photo) -> float:
    return datetime.fromisoformat(photo.taken_at or "").replace(tzinfo=UTC).timestamp()


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
