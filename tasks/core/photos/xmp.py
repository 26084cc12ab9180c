"""Read what a drone writes into a photo's XMP: exact position and the angles of its gimbal.

DJI cuts EXIF's latitude and longitude to fewer digits than the XMP has (https://github.com/mapillary/OpenSfM/pull/473).
The packet is not parsed as XML, which would have to be guarded against entities and depth: each value is the text of an
attribute or an element with a known name.
"""

import math
import re
from dataclasses import dataclass

from PIL import Image

from tasks.core.photoset import Direction

MOST_BYTES = 1 << 20  # a packet with a thumbnail has some 100 kB
NUMBER = re.compile(r"\s*([+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*")
GIMBALS = (  # pitch and roll; all count pitch from the horizon, -90 is straight down
    ("drone-dji:GimbalPitchDegree", "drone-dji:GimbalRollDegree"),
    ("drone-parrot:CameraPitchDegree", "drone-parrot:CameraRollDegree"),
    ("drone-autel:GimbalPitchDegree", "drone-autel:GimbalRollDegree"),
    ("drone-skydio:CameraOrientationNED:Pitch", "drone-skydio:CameraOrientationNED:Roll"),
)
LATITUDES = ("drone-dji:GpsLatitude", "drone-autel:GpsLatitude")
LONGITUDES = (
    "drone-dji:GpsLongitude",
    "drone-dji:GpsLongtitude",
    "drone-autel:GpsLongitude",
)  # the second is DJI's own
ALTITUDES = ("drone-dji:AbsoluteAltitude", "drone-autel:AbsoluteAltitude")


@dataclass(frozen=True)
class XmpFacts:
    """Facts of the XMP packet; what it does not say is None."""

    latitude_deg: float | None = None
    longitude_deg: float | None = None
    altitude_m: float | None = None
    gimbal_pitch_deg: float | None = None
    gimbal_roll_deg: float | None = None


def read_xmp(image: Image.Image) -> XmpFacts:
    """Read the facts of an opened image; nothing is decoded."""
    text = _packet(image)
    if not text:
        return XmpFacts()
    pitch, roll = None, None
    for pitch_name, roll_name in GIMBALS:
        pitch, roll = _number(text, pitch_name), _number(text, roll_name)
        if pitch is not None:
            break
    believed = pitch is not None and abs(pitch) <= 180 and (roll is None or abs(roll) <= 180)
    return XmpFacts(
        latitude_deg=_first(text, LATITUDES),
        longitude_deg=_first(text, LONGITUDES),
        altitude_m=_first(text, ALTITUDES),
        gimbal_pitch_deg=pitch if believed else None,
        gimbal_roll_deg=(roll or 0.0) if believed else None,
    )


def up_in_camera(pitch_deg: float, roll_deg: float, orientation: int) -> Direction:
    """Direction to the sky in the axes of the upright photo's camera: x right, y down, z forward; unit length.

    The gimbal turns the camera by yaw, pitch and roll, in this order, about down, right and forward. `orientation` is
    EXIF's, which says how the stored pixels are turned to be upright.
    """
    pitch, roll = math.radians(pitch_deg), math.radians(roll_deg)
    x, y, z = -math.cos(pitch) * math.sin(roll), -math.cos(pitch) * math.cos(roll), math.sin(pitch)
    upright = {1: (x, y), 2: (-x, y), 3: (-x, -y), 4: (x, -y), 5: (y, x), 6: (-y, x), 7: (-y, -x), 8: (y, -x)}
    return (*upright[orientation], z)


def _packet(image: Image.Image) -> str:
    for place in ("xmp", "XML:com.adobe.xmp"):
        found = image.info.get(place)
        if isinstance(found, bytes) and len(found) <= MOST_BYTES:
            return found.decode("utf-8", "replace")
        if isinstance(found, str) and len(found) <= MOST_BYTES:
            return found
    return ""


def _first(text: str, names: tuple[str, ...]) -> float | None:
    return next((value for name in names if (value := _number(text, name)) is not None), None)


def _number(text: str, name: str) -> float | None:
    """Return the number that is an attribute `name="…"` or an element `<name>…</name>`; None if there is none."""
    found = re.search(rf'{re.escape(name)}\s*(?:=\s*["\']|>)([^"\'<>]{{1,40}})', text)
    number = NUMBER.fullmatch(found[1]) if found else None
    value = float(number[1]) if number else math.nan
    return value if math.isfinite(value) else None
