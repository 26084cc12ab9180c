"""Read the camera's metadata: focal length, model, time, place. Malformed values count as absent."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from tasks.core.image_file import MALFORMED
from tasks.core.photos.xmp import XmpFacts, read_xmp, up_in_camera
from tasks.core.photoset import ALTITUDES_M, FULL_FRAME_DIAGONAL_MM, Direction, Gps, is_believed_focal

MM_PER_RESOLUTION_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # EXIF 2.32, FocalPlaneResolutionUnit
UTC_OFFSET = re.compile(r"Z|(?P<sign>[+-])(?P<hours>[01]\d):(?P<minutes>[0-5]\d)")
GPS_CLOCK_MINUTES = 3.0  # between the photo and the GPS fix
MOST_OFFSET_MINUTES = 14 * 60  # Kiritimati
MOST_DIGITAL_ZOOM = 100.0
CUT_DEGREES = 1 / 60 + 1e-9  # what is lost when an angle is cut to whole minutes

KEPT_TAGS = (Base.Make, Base.Model, Base.DateTime)
KEPT_EXIF_TAGS = (
    Base.FocalLength,
    Base.FocalLengthIn35mmFilm,
    Base.FocalPlaneXResolution,
    Base.FocalPlaneYResolution,
    Base.FocalPlaneResolutionUnit,
    Base.DateTimeOriginal,
    Base.SubsecTimeOriginal,
    Base.OffsetTime,
    Base.OffsetTimeOriginal,
    Base.DigitalZoomRatio,
)
KEPT_GPS_TAGS = (
    GPS.GPSLatitudeRef,
    GPS.GPSLatitude,
    GPS.GPSLongitudeRef,
    GPS.GPSLongitude,
    GPS.GPSAltitudeRef,
    GPS.GPSAltitude,
    GPS.GPSTimeStamp,
    GPS.GPSDateStamp,
)


@dataclass(frozen=True)
class ExifFacts:
    """Facts that later stages use. The focal length is in pixels of the photo's own size."""

    orientation: int  # 1 = upright, 2..8 as in EXIF
    focal_px: float | None
    focal_doubted: bool  # EXIF has a focal length that no lens has; it is ignored
    camera: str | None
    taken_at: str | None
    utc_offset_minutes: int | None
    gps: Gps | None
    up_in_camera: Direction | None = None  # of the upright photo
    digital_zoom: float = 1.0


def read_exif(image: Image.Image) -> ExifFacts:
    """Read the facts of an opened image; nothing is rotated yet."""
    try:
        return _facts(image)
    except MALFORMED:  # an EXIF block that Pillow cannot parse counts as empty; the pixels are good
        return ExifFacts(
            orientation=1,
            focal_px=None,
            focal_doubted=False,
            camera=None,
            taken_at=None,
            utc_offset_minutes=None,
            gps=None,
        )


def _facts(image: Image.Image) -> ExifFacts:
    exif = image.getexif()
    details = exif.get_ifd(IFD.Exif)
    position = exif.get_ifd(IFD.GPSInfo)
    orientation = exif.get(Base.Orientation, 1)
    taken_at = _taken_at(exif, details)
    focal_px, focal_doubted = _focal_px(details, *image.size)
    orientation = orientation if orientation in range(1, 9) else 1
    xmp = read_xmp(image)
    pitch_deg, roll_deg = xmp.gimbal_pitch_deg, xmp.gimbal_roll_deg
    return ExifFacts(
        orientation=orientation,
        focal_px=focal_px,
        focal_doubted=focal_doubted,
        camera=_camera(exif),
        taken_at=taken_at,
        utc_offset_minutes=None if taken_at is None else _utc_offset_minutes(details, position, taken_at),
        gps=_exact(_gps(position), xmp),
        up_in_camera=None if pitch_deg is None or roll_deg is None else up_in_camera(pitch_deg, roll_deg, orientation),
        digital_zoom=_digital_zoom(details),
    )


def upright_exif(image: Image.Image) -> Image.Exif:
    """A small EXIF block for re-encoded pixels: camera, focal length, time and place, without orientation.

    Only known tags are copied: maker notes contain offsets that a rewrite breaks, and some cameras write values (NaN
    rationals) that cannot be written back.
    """
    kept = Image.Exif()
    try:
        source = image.getexif()
        kept.update({tag: source[tag] for tag in KEPT_TAGS if isinstance(source.get(tag), str)})
        folders: tuple[tuple[int, tuple[int, ...]], ...] = ((IFD.Exif, KEPT_EXIF_TAGS), (IFD.GPSInfo, KEPT_GPS_TAGS))
        for folder, tags in folders:
            found = source.get_ifd(folder)
            target = kept.get_ifd(folder)
            target.update({tag: found[tag] for tag in tags if tag in found and _writable(folder, tag, found[tag])})
    except MALFORMED:
        return Image.Exif()
    return kept


def _writable(folder: int, tag: int, value: Any) -> bool:
    """Whether a value can be written back, which depends on the tag's type."""
    values = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, str | bytes) or _number(item) is not None for item in values):
        return False
    alone = Image.Exif()
    alone.get_ifd(folder)[tag] = value
    try:
        alone.tobytes()
    except MALFORMED:
        return False
    return True


def _number(value: Any) -> float | None:
    """A finite float, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _focal_px(details: Mapping[int, Any], width: int, height: int) -> tuple[float | None, bool]:
    """The first plausible focal length in EXIF, and whether an implausible one was found."""
    said = [
        focal_px
        for focal_px in (_focal_of_equivalent(details, width, height), _focal_of_sensor(details, width, height))
        if focal_px is not None
    ]
    believed = [focal_px for focal_px in said if is_believed_focal(focal_px, width, height)]
    return (believed[0] if believed else None), len(believed) < len(said)


def _digital_zoom(details: Mapping[int, Any]) -> float:
    ratio = _number(details.get(Base.DigitalZoomRatio))
    return ratio if ratio is not None and 1.0 <= ratio <= MOST_DIGITAL_ZOOM else 1.0  # 0 means not used


def _focal_of_equivalent(details: Mapping[int, Any], width: int, height: int) -> float | None:
    equivalent_mm = _number(details.get(Base.FocalLengthIn35mmFilm))
    if not equivalent_mm or equivalent_mm < 0:  # 0 means unknown
        return None
    return equivalent_mm / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height)


def _focal_of_sensor(details: Mapping[int, Any], width: int, height: int) -> float | None:
    focal_mm = _number(details.get(Base.FocalLength))
    resolution = _number(details.get(Base.FocalPlaneXResolution))
    unit_mm = MM_PER_RESOLUTION_UNIT.get(details.get(Base.FocalPlaneResolutionUnit, 2))
    if not (focal_mm and resolution and unit_mm and focal_mm > 0 and resolution > 0):
        return None
    # the resolution counts pixels of the sensor's full readout; the file may have been scaled afterwards
    sensor_px = _number(details.get(Base.ExifImageWidth)) or width
    return focal_mm * resolution / unit_mm * max(width, height) / max(sensor_px, 1)


def _text(value: Any) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value  # bytes, if the tag was written so
    return text.strip("\0 \t\r\n") if isinstance(text, str) else ""


def _camera(exif: Image.Exif) -> str | None:
    return " ".join(filter(None, (_text(exif.get(Base.Make)), _text(exif.get(Base.Model))))) or None


def _taken_at(exif: Image.Exif, details: Mapping[int, Any]) -> str | None:
    text = _text(details.get(Base.DateTimeOriginal)) or _text(exif.get(Base.DateTime))
    subseconds = _text(details.get(Base.SubsecTimeOriginal))
    try:
        taken = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 (EXIF local time has no zone)
    except ValueError:
        return None
    if subseconds.isdecimal():
        taken = taken.replace(microsecond=int(f"0.{subseconds}"[2:8].ljust(6, "0")))
    return taken.isoformat()


def _utc_offset_minutes(details: Mapping[int, Any], position: Mapping[int, Any], taken_at: str) -> int | None:
    """Offset of the camera's clock from UTC: EXIF's offset tag, else from the GPS clock to a quarter of an hour."""
    for tag in (Base.OffsetTimeOriginal, Base.OffsetTime):
        said = UTC_OFFSET.fullmatch(_text(details.get(tag)))
        if said:
            minutes = 60 * int(said["hours"] or 0) + int(said["minutes"] or 0)
            return -minutes if said["sign"] == "-" else minutes
    clock = position.get(GPS.GPSTimeStamp)
    parts = [_number(part) for part in clock] if isinstance(clock, tuple) else []
    try:
        day = datetime.strptime(_text(position.get(GPS.GPSDateStamp)), "%Y:%m:%d")  # noqa: DTZ007 (UTC by definition)
        hour, minute, second = (part or 0.0 for part in parts)
        fix = day + timedelta(hours=hour, minutes=minute, seconds=second)
    except (ValueError, OverflowError):
        return None
    ahead = (datetime.fromisoformat(taken_at) - fix) / timedelta(minutes=1)
    offset = 15 * round(ahead / 15)
    # if the clock is minutes off, or the fix is older, the zone is uncertain
    return offset if abs(ahead - offset) <= GPS_CLOCK_MINUTES and abs(offset) <= MOST_OFFSET_MINUTES else None


def _exact(gps: Gps | None, xmp: XmpFacts) -> Gps | None:
    """EXIF's position with the digits, and the values, that only the XMP has."""
    latitude, longitude, altitude = xmp.latitude_deg, xmp.longitude_deg, xmp.altitude_m
    if latitude is None or longitude is None or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return gps
    if latitude == 0 and longitude == 0:
        return gps
    if gps is None:
        return Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=_believed_altitude(altitude))
    apart = abs(gps.latitude_deg - latitude), abs((gps.longitude_deg - longitude + 180) % 360 - 180)
    if max(apart) > CUT_DEGREES and not gps.hemisphere_assumed:  # another place: a person or a program put it there
        return gps
    known = gps.altitude_m if gps.altitude_m else _believed_altitude(altitude)
    return Gps(latitude_deg=latitude, longitude_deg=longitude, altitude_m=gps.altitude_m if known is None else known)


def _gps(tags: Mapping[int, Any]) -> Gps | None:
    letters = _text(tags.get(GPS.GPSLatitudeRef)).upper(), _text(tags.get(GPS.GPSLongitudeRef)).upper()
    latitude = _degrees(tags.get(GPS.GPSLatitude), letters[0], "S", 90)
    longitude = _degrees(tags.get(GPS.GPSLongitude), letters[1], "W", 180)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):  # 0, 0: no fix yet
        return None
    altitude = _number(tags.get(GPS.GPSAltitude))
    if altitude is not None and tags.get(GPS.GPSAltitudeRef) in (1, b"\x01", "\x01"):
        altitude = -altitude
    return Gps(
        latitude_deg=latitude,
        longitude_deg=longitude,
        altitude_m=_believed_altitude(altitude),
        hemisphere_assumed=letters[0] not in ("N", "S") or letters[1] not in ("E", "W"),
    )


def _believed_altitude(altitude_m: float | None) -> float | None:
    return altitude_m if altitude_m is not None and ALTITUDES_M[0] <= altitude_m <= ALTITUDES_M[1] else None


def _degrees(value: Any, letter: str, negative: str, limit: float) -> float | None:
    """Degrees from (degrees, minutes, seconds) and a hemisphere's letter."""
    if not isinstance(value, tuple) or not value:
        return None
    parts = [_number(item) for item in value]
    if len(parts) > 3 or None in parts:
        return None
    degrees = math.fsum(part / 60.0**i for i, part in enumerate(parts) if part is not None)
    if not 0 <= degrees <= limit:
        return None
    return -degrees if letter == negative else degrees
