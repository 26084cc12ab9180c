"""Where on Earth a scene stands: `georeference.json`, in the scene's folder and beside the published splat."""

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict

GEOREFERENCE_FILE = "georeference.json"
IDENTITY = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


class GpsResidual(BaseModel):
    """How far a camera stands from where GPS says its photo was taken: camera minus GPS, in metres."""

    model_config = ConfigDict(frozen=True)

    name: str
    east_m: float
    north_m: float
    up_m: float

    @property
    def length_m(self) -> float:
        """The distance of the camera from where GPS says it was."""
        return math.hypot(self.east_m, self.north_m, self.up_m)


class Georeference(BaseModel):
    """A scene in metres, East-North-Up around a WGS84 origin."""

    model_config = ConfigDict(frozen=True)

    latitude_deg: float
    longitude_deg: float
    altitude_m: float  # as the photos' GPS or flight log has it: above the ellipsoid or the sea, which EXIF leaves open
    enu_from_scene: tuple[tuple[float, float, float, float], ...] = IDENTITY  # [4, 4]; scenes are made in ENU
    residual_rms_m: float  # of camera centres against GPS, of the photos that it was fitted to
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
        """Read what `save` wrote; None where a scene has no georeference."""
        file = folder / GEOREFERENCE_FILE
        return cls.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None
