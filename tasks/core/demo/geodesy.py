"""WGS84: from metres East-North-Up around an origin to latitude, longitude and ellipsoidal altitude, and back.

https://en.wikipedia.org/wiki/Geographic_coordinate_conversion
"""

import math
from dataclasses import dataclass

import numpy as np

from tasks.core.transforms import Float64

SEMI_MAJOR_M = 6378137.0
FLATTENING = 1 / 298.257223563
ECCENTRICITY2 = FLATTENING * (2 - FLATTENING)


@dataclass(frozen=True)
class Position:
    """A place on Earth, WGS84."""

    latitude_deg: float
    longitude_deg: float
    altitude_m: float


def _earth_centred(place: Position) -> Float64:
    latitude, longitude = math.radians(place.latitude_deg), math.radians(place.longitude_deg)
    normal = SEMI_MAJOR_M / math.sqrt(1 - ECCENTRICITY2 * math.sin(latitude) ** 2)
    return np.array(
        [
            (normal + place.altitude_m) * math.cos(latitude) * math.cos(longitude),
            (normal + place.altitude_m) * math.cos(latitude) * math.sin(longitude),
            (normal * (1 - ECCENTRICITY2) + place.altitude_m) * math.sin(latitude),
        ]
    )


def _enu_from_earth(origin: Position) -> Float64:
    latitude, longitude = math.radians(origin.latitude_deg), math.radians(origin.longitude_deg)
    sin_lat, cos_lat, sin_lon, cos_lon = (
        math.sin(latitude),
        math.cos(latitude),
        math.sin(longitude),
        math.cos(longitude),
    )
    return np.array(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ]
    )


def enu_from_position(place: Position, origin: Position) -> Float64:
    """Metres East, North, Up [3] of a place as seen from the origin."""
    return np.asarray(_enu_from_earth(origin) @ (_earth_centred(place) - _earth_centred(origin)))


def position_from_enu(enu: Float64, origin: Position) -> Position:
    """Where a point [3], metres East-North-Up of the origin, lies on Earth; exact to below a millimetre."""
    x, y, z = _earth_centred(origin) + _enu_from_earth(origin).T @ enu
    horizontal = math.hypot(x, y)
    latitude = math.atan2(z, horizontal * (1 - ECCENTRICITY2))
    altitude = 0.0
    for _ in range(6):  # each turn gains about two digits
        normal = SEMI_MAJOR_M / math.sqrt(1 - ECCENTRICITY2 * math.sin(latitude) ** 2)
        altitude = horizontal / math.cos(latitude) - normal
        latitude = math.atan2(z, horizontal * (1 - ECCENTRICITY2 * normal / (normal + altitude)))
    return Position(math.degrees(latitude), math.degrees(math.atan2(y, x)), altitude)
