"""The place of a scene on Earth: `georeference.json`, in the scene's folder and next to the published splat.

Directions from the Earth's centre are used instead of latitude and longitude, because they have no seam at 180° and no
singular poles. The distance of two directions times the radius is their distance on the ground, accurate to 0.5 % (a
sphere instead of WGS84's ellipsoid) over some 100 km.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.core.transforms import Float64

EARTH_RADIUS_M = 6_371_000.0

GEOREFERENCE_FILE = "georeference.json"
IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


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
    """Return latitude and longitude of the place `east_m` and `north_m` away."""
    [normal] = nvectors(np.array([latitude_deg]), np.array([longitude_deg]))
    longitude = np.radians(longitude_deg)
    east = np.array([-np.sin(longitude), np.cos(longitude), 0.0])
    return latitude_longitude(normal + (east_m * east + north_m * np.cross(normal, east)) / EARTH_RADIUS_M)


class GpsResidual(BaseModel):
    """Distance of a camera from its photo's GPS position: camera minus GPS, in metres."""

    model_config = ConfigDict(frozen=True)

    name: str
    east_m: float
    north_m: float
    up_m: float | None  # null where the photo has no altitude

    @property
    def length_m(self) -> float:
        """The length of the distance."""
        return math.hypot(self.east_m, self.north_m, self.up_m or 0.0)


class Georeference(BaseModel):
    """A scene in metres, East-North-Up around a WGS84 origin."""

    model_config = ConfigDict(frozen=True)

    latitude_deg: float
    longitude_deg: float
    # From the photos' GPS or flight log: above the ellipsoid or the sea, which EXIF does not say. Null where no photo
    # has an altitude: heights in the scene are then above its cameras' median.
    altitude_m: float | None
    enu_from_scene: tuple[tuple[float, float, float, float], ...] = IDENTITY  # [4, 4]; scenes are made in ENU
    # Of camera centres against GPS, over the photos used for the fit; where altitudes are not believed, on the ground
    residual_rms_m: float
    horizontal_rms_m: float | None = None  # the same on the ground; null in files of before it was measured
    vertical_rms_m: float | None = None  # in height; null without altitudes that are believed
    residual_median_m: float | None = None  # of all photos that have GPS; null in files of before it was measured
    left_out: tuple[str, ...] = ()  # names of photos whose GPS is too far from their camera: not fitted to
    residuals: tuple[GpsResidual, ...] = ()  # of each registered photo that has GPS

    @property
    def misplaced(self) -> tuple[GpsResidual, ...]:
        """The residuals of the photos that were left out, the greatest first."""
        found = [residual for residual in self.residuals if residual.name in self.left_out]
        return tuple(sorted(found, key=lambda residual: -residual.length_m))

    def save(self, folder: Path) -> None:
        """Write the file into a folder."""
        (folder / GEOREFERENCE_FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Georeference | None":
        """Read what `save` wrote; None if the scene has no georeference."""
        file = folder / GEOREFERENCE_FILE
        return cls.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None
