"""Match the places of a flight log to photos: by EXIF time, else by order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from tasks.core.errors import PhotosError
from tasks.core.georeference import EARTH_RADIUS_M, latitude_longitude, nvectors
from tasks.core.photos.flight_log import LogRow
from tasks.core.photoset import Gps, Photo
from tasks.core.transforms import Float64

LONGEST_GAP_SECONDS = 10.0  # between two lines of the log that a photo is placed between; a drone flies 150 m in it
NEAREST_SECONDS = 2.0  # from a photo to a single line
MOST_SHARE = 0.5  # of the photos must lie in the log for a match by time to be believed
CLEAR_SHARE = 0.1  # of the photos, by which another time zone is worse than the best
# Time zones of the world, as minutes from UTC. A camera's clock and the log's may be one of them apart, either way: one
# of them is often UTC, and EXIF times seldom have a zone.
ZONES_MINUTES = (
    *range(-12 * 60, 14 * 60 + 1, 60),
    *(-9 * 60 - 30, -3 * 60 - 30, -2 * 60 - 30),  # Marquesas, Newfoundland in winter and summer
    *(3 * 60 + 30, 4 * 60 + 30, 5 * 60 + 30, 6 * 60 + 30),  # Iran, Afghanistan, India, Myanmar
    *(9 * 60 + 30, 10 * 60 + 30),  # Australia
    *(5 * 60 + 45, 8 * 60 + 45, 12 * 60 + 45, 13 * 60 + 45),  # Nepal, Eucla, Chatham Islands
)
OFFSETS_MINUTES = tuple(sorted({sign * minutes for minutes in ZONES_MINUTES for sign in (1, -1)}, key=abs))
SAME_PLACE_M = 200.0  # EXIF's places and the right lines of the log are nearer than this; a drone flies it in 15 s
LEAST_FARTHER_M = 20.0  # consumer GPS errs by 2 to 5 m
NAMED_ZONES = 6
LEAST_CLOCK_ERROR_SECONDS = 60.0  # below that EXIF's place may be the older one: some cameras repeat their last fix
FARTHER = 3.0  # times as far from EXIF's places are all other zones, where those decide


def place_photos(photos: Sequence[Photo], rows: Sequence[LogRow]) -> tuple[tuple[Photo, ...], str]:
    """Return the photos with the log's places instead of EXIF's, and a sentence on how they were found.

    A photo that the log does not cover is left without a place: EXIF's altitude may count from another zero.

    Raises:
        PhotosError: neither times nor the number of lines match; or the log's clock was set back, or the camera's is
            minutes wrong.
    """
    by_time = all(row.time is not None for row in rows) and all(photo.taken_at for photo in photos)
    if by_time:
        _require_one_place_at_a_time(rows)
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
    track = _Track.of(rows)
    offset = _clock_offset(photos, track)
    _require_right_clock(photos, track, offset)
    placed = tuple(
        photo.model_copy(update={"gps": gps})
        for photo, gps in zip(photos, track.places(_moments(photos), offset), strict=True)
    )
    found = sum(photo.gps is not None for photo in placed)
    clock = f"; the camera's clock is {_zone(offset)} from the log's" if offset else ""
    return placed, f"{found} of {len(placed)} photos placed by their times in the flight log{clock}"


@dataclass(frozen=True)
class _Track:
    """The log's lines in order of time."""

    times: Float64  # [R] seconds by the log's clock
    directions: Float64  # [R, 3] n-vectors: the date line and the poles are places as others
    altitudes_m: Float64  # [R]
    utc: bool

    @classmethod
    def of(cls, rows: Sequence[LogRow]) -> "_Track":
        places = np.array([(r.place.latitude_deg, r.place.longitude_deg) for r in rows], dtype=np.float64)
        return cls(
            times=np.array([row.time for row in rows], dtype=np.float64),
            directions=nvectors(places[:, 0], places[:, 1]),
            altitudes_m=np.array([row.place.altitude_m for row in rows], dtype=np.float64),
            utc=all(row.utc for row in rows),
        )

    def places(self, taken: Float64, offset_minutes: float) -> list[Gps | None]:
        """Places of the drone at moments [N] of a clock that is so many minutes ahead; None where the log has a gap."""
        return [self._place_at(moment) for moment in (taken - 60 * offset_minutes).tolist()]

    def spanned(self, taken: Float64, offset_minutes: int) -> float:
        """The share of the moments [N] between the log's first and last line."""
        moments = taken - 60 * offset_minutes
        inside = (moments >= self.times[0] - NEAREST_SECONDS) & (moments <= self.times[-1] + NEAREST_SECONDS)
        return float(np.mean(inside))

    def covered(self, taken: Float64, offset_minutes: int) -> float:
        """The share of the moments [N] that have a place."""
        moments = taken - 60 * offset_minutes
        after = np.searchsorted(self.times, moments)
        before, after = np.maximum(after - 1, 0), np.minimum(after, len(self.times) - 1)
        since, until = moments - self.times[before], self.times[after] - moments
        between = (since >= 0) & (until >= 0) & (since + until <= LONGEST_GAP_SECONDS)
        return float(np.mean(between | (np.minimum(abs(since), abs(until)) <= NEAREST_SECONDS)))

    def _place_at(self, moment: float) -> Gps | None:
        times = self.times
        after = int(np.searchsorted(times, moment))
        before = max(after - 1, 0)
        after = min(after, len(times) - 1)
        gap = times[after] - times[before]
        if times[before] <= moment <= times[after] and gap <= LONGEST_GAP_SECONDS:
            share = (moment - times[before]) / gap if gap > 0 else 0.0
        else:
            share = float(abs(moment - times[before]) > abs(moment - times[after]))
            if abs(moment - times[after if share else before]) > NEAREST_SECONDS:
                return None
        direction = (1 - share) * self.directions[before] + share * self.directions[after]
        latitude, longitude = latitude_longitude(direction)
        altitude = (1 - share) * self.altitudes_m[before] + share * self.altitudes_m[after]
        return Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=float(altitude))


def _require_one_place_at_a_time(rows: Sequence[LogRow]) -> None:
    """Raise PhotosError for a log whose clock was set back while it was written, as in autumn, or of two drones."""
    track = _Track.of(rows)  # in the file's order
    runs = np.concatenate([[0], np.cumsum(np.diff(track.times) < -LONGEST_GAP_SECONDS)])
    order = np.argsort(track.times, kind="stable")
    times, directions, runs = track.times[order], track.directions[order], runs[order]
    apart_m = np.linalg.norm(np.diff(directions, axis=0), axis=1) * EARTH_RADIUS_M
    twice = (np.diff(runs) != 0) & (np.diff(times) <= LONGEST_GAP_SECONDS) & (apart_m > SAME_PLACE_M)
    if twice.any():
        at = int(np.argmax(twice))
        raise PhotosError(
            f"The flight log has two places for {_clock(times[at])}, {apart_m[at]:,.0f} m apart: its clock was set "
            "back, or it holds two flights. Give its times in UTC, or the lines of one flight."
        )


def _require_right_clock(photos: Sequence[Photo], track: _Track, offset: int) -> None:
    """Raise PhotosError if EXIF's places are along the log's track, but minutes away from the places by time."""
    taken, ahead = _moments(photos), []
    for photo, moment in zip(photos, taken.tolist(), strict=True):
        if photo.gps is not None:
            [direction] = nvectors(np.array([photo.gps.latitude_deg]), np.array([photo.gps.longitude_deg]))
            ahead.append(moment - track.times[np.argmax(track.directions @ direction)])
    if not ahead or abs(np.median(ahead) - 60 * offset) < LEAST_CLOCK_ERROR_SECONDS:
        return
    minutes = float(np.median(ahead)) / 60
    found_m, best_m = (_distance_m(photos, track.places(taken, by)) for by in (offset, minutes))
    if best_m <= SAME_PLACE_M and _is_clearly_farther(found_m, best_m):
        raise PhotosError(
            f"The flight log's times put the photos {found_m:,.0f} m from their places in EXIF, and {best_m:,.0f} m if "
            f"the camera's clock is {_zone(round(minutes))} from the log's: correct the times, or take the GPS out of "
            "the photos if it is wrong."
        )


def _clock_offset(photos: Sequence[Photo], track: _Track) -> int:
    """Minutes by which the camera's clock is ahead of the log's.

    Considers the time zones that put the photos into the log, and chooses the zone that the clocks themselves state,
    or else the zone whose places agree with EXIF. Raises PhotosError if no zone fits, or several fit equally.
    """
    taken = _moments(photos)
    fitting = _fitting_offsets(taken, track)
    said = [offset for offset in _said_offsets(photos, track) if track.spanned(taken, offset) >= MOST_SHARE]
    for candidates in (said, fitting):
        if len(candidates) == 1:
            return candidates[0]
        nearest = _nearest_to_exif(photos, track, taken, candidates)
        if nearest is not None:
            return nearest
    span = f"the log runs from {_clock(track.times[0])} to {_clock(track.times[-1])}, "
    span += f"the photos from {_clock(taken.min())} to {_clock(taken.max())}"
    if not fitting:
        raise PhotosError(
            f"The flight log does not cover the photos: {span}, and no time zone brings them together. "
            "Give the log of this flight."
        )
    zones = ", ".join(_zone(offset) for offset in sorted(fitting)[:NAMED_ZONES])
    raise PhotosError(
        f"The flight log fits the photos at several time zones ({zones}): {span}. Keep only the lines of this "
        "flight in the log, or name its column 'datetime(utc)' and give photos whose EXIF has OffsetTimeOriginal."
    )


def _fitting_offsets(taken: Float64, track: _Track) -> list[int]:
    """Return the offsets that put most photos next to lines of the log, or between its ends if its lines are sparse."""
    for share in (track.covered, track.spanned):
        shares = {offset: share(taken, offset) for offset in OFFSETS_MINUTES}
        least = max(MOST_SHARE, max(shares.values()) - CLEAR_SHARE)
        fitting = [offset for offset, found in shares.items() if found >= least]
        if fitting:
            return fitting
    return []


def _said_offsets(photos: Sequence[Photo], track: _Track) -> list[int]:
    """Offsets that follow from EXIF's zone, if it is one: the log's clock is UTC, or may be the camera's."""
    zones = {photo.utc_offset_minutes for photo in photos}
    zone = zones.pop() if len(zones) == 1 else None
    if zone is None:
        return []
    return [zone] if track.utc else sorted({0, zone})


def _nearest_to_exif(photos: Sequence[Photo], track: _Track, taken: Float64, offsets: Sequence[int]) -> int | None:
    """Return the offset at which the log's places agree with EXIF, if all others are clearly farther; else None."""
    if len(offsets) < 2:
        return None
    ranked = sorted((_distance_m(photos, track.places(taken, offset)), offset) for offset in offsets)
    (best_m, best), (second_m, _) = ranked[:2]
    return best if best_m <= SAME_PLACE_M and _is_clearly_farther(second_m, best_m) else None


def _is_clearly_farther(distance_m: float, best_m: float) -> bool:
    return distance_m > max(FARTHER * best_m, best_m + LEAST_FARTHER_M)


def _distance_m(photos: Sequence[Photo], places: Sequence[Gps | None]) -> float:
    """Median distance on the ground of EXIF's places from these; infinite without any."""
    both = [
        (photo.gps, place)
        for photo, place in zip(photos, places, strict=True)
        if photo.gps is not None and place is not None
    ]
    if not both:
        return math.inf
    exif, found = (
        nvectors(np.array([g.latitude_deg for g in side]), np.array([g.longitude_deg for g in side]))
        for side in zip(*both, strict=True)
    )
    return float(np.median(np.linalg.norm(exif - found, axis=1))) * EARTH_RADIUS_M


def _moments(photos: Sequence[Photo]) -> Float64:
    """EXIF's times [N] in seconds, by the camera's own clock."""
    return np.array([_seconds(photo) for photo in photos], dtype=np.float64)


def _zone(minutes: int) -> str:
    hours, rest = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hours} h" + (f" {rest} min" if rest else "")


def _seconds(photo: Photo) -> float:
    return datetime.fromisoformat(photo.taken_at or "").replace(tzinfo=UTC).timestamp()


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
