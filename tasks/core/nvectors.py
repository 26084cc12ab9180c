"""Directions from the Earth's centre instead of latitude and longitude: no seam at 180°, no singular poles.

Two directions' distance times the radius is their distance on the ground, good to 0.5 % (a sphere for WGS84's
ellipsoid) over some 100 km.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.core.transforms import Float64

EARTH_RADIUS_M = 6_371_000.0


def nvectors(latitudes_deg: NDArray[np.float64], longitudes_deg: NDArray[np.float64]) -> Float64:
    """Unit vectors [N, 3] from geodetic degrees [N]."""
    latitudes, longitudes = np.radians(latitudes_deg), np.radians(longitudes_deg)
    across = np.cos(latitudes)
    return np.stack([across * np.cos(longitudes), across * np.sin(longitudes), np.sin(latitudes)], axis=-1)


def latitude_longitude(vector: Float64) -> tuple[float, float]:
    """Degrees of a vector [3] of any length; longitudes from -180 to 180."""
    x, y, z = (float(value) for value in vector)
    return float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(np.degrees(np.arctan2(y, x)))


def moved(latitude_deg: float, longitude_deg: float, east_m: float, north_m: float) -> tuple[float, float]:
    """Latitude and longitude of the place that is `east_m` and `north_m` away."""
    [normal] = nvectors(np.array([latitude_deg]), np.array([longitude_deg]))
    longitude = np.radians(longitude_deg)
    east = np.array([-np.sin(longitude), np.cos(longitude), 0.0])
    return latitude_longitude(normal + (east_m * east + north_m * np.cross(normal, east)) / EARTH_RADIUS_M)
