"""A validated set of photos on disk: output of the photos stage and input of the sfm stage.

Layout of the folder: `images/<name>` (upright JPEG or PNG, nothing rotated by EXIF) and `photos.json`.
"""

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from tasks.core.errors import UnsafeNameError
from tasks.core.safe_names import safe_name

Direction = tuple[float, float, float]

PHOTOS_FILE = "photos.json"
IMAGES_FOLDER = "images"
ALTITUDES_M = (-500.0, 20_000.0)  # from below the Dead Sea's shore to above any aircraft that takes photos
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)  # 35 mm equivalents compare diagonals: CIPA DCG-001, section 5
FOCAL_LENGTHS_MM = (5.0, 1500.0)  # 35 mm equivalents of lenses: from a fisheye's to a telescope's


def is_believed_focal(focal_px: float, width: int, height: int) -> bool:
    """Whether a lens can have this focal length, in pixels of an image of this size."""
    shortest, longest = FOCAL_LENGTHS_MM
    return shortest <= round(focal_px * FULL_FRAME_DIAGONAL_MM / math.hypot(width, height), 6) <= longest


class Gps(BaseModel):
    """Position of a photo from EXIF or the flight log, WGS84."""

    model_config = ConfigDict(frozen=True)

    latitude_deg: float
    longitude_deg: float
    altitude_m: float | None = None
    hemisphere_assumed: bool = False  # EXIF lacks the letter N, S, E or W of an angle, which counts as N or E


class Photo(BaseModel):
    """One usable photo."""

    model_config = ConfigDict(frozen=True)

    name: str  # relative to images/, posix; the user's own name and subfolder, with the extension of the stored format
    width: int
    height: int
    sha256: str  # of the file as the user gave it
    focal_px: float | None = None  # from EXIF, in pixels of the long side's scale at width x height
    focal_doubted: bool = False  # EXIF has a focal length that no lens has, so that only others of it count, if any
    camera: str | None = None  # EXIF make and model: photos that agree in it, in size and focal length share intrinsics
    taken_at: str | None = None  # EXIF local time, ISO 8601
    utc_offset_minutes: int | None = None  # of that time, by EXIF's offset or by the GPS clock
    gps: Gps | None = None
    up_in_camera: Direction | None = (
        None  # to the sky, by the gimbal's angles: x right, y down, z forward of the camera
    )
    digital_zoom: float = 1.0  # by which the camera enlarged a part of its image; counted in focal_px where it must be

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        """Reject names that leave the folder: the stored set is read from a place that others may write."""
        try:
            return safe_name(name)
        except UnsafeNameError as error:
            raise ValueError(str(error)) from error


class RejectedPhoto(BaseModel):
    """A file that was offered as a photo and cannot be used."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str


class PhotoSet(BaseModel):
    """The usable photos in capture order (time, else natural name order)."""

    model_config = ConfigDict(frozen=True)

    photos: tuple[Photo, ...]
    flight_log: str | None = None  # how the places were found in a flight log; null where they are EXIF's own

    def save(self, folder: Path) -> None:
        """Write `photos.json` into the folder that holds `images/`."""
        (folder / PHOTOS_FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "PhotoSet":
        """Read what `save` wrote."""
        return cls.model_validate_json((folder / PHOTOS_FILE).read_text(encoding="utf-8"))


class CheckedPhotos(BaseModel):
    """All files that were offered as photos: the set, and the rejected files.

    Rejected files are not part of the stored set, so another unusable file does not change it.
    """

    model_config = ConfigDict(frozen=True)

    photo_set: PhotoSet
    rejected: tuple[RejectedPhoto, ...] = ()
    not_read: dict[str, int] = {}  # other files, by extension
    notes: tuple[str, ...] = ()  # sentences on how photos were changed

    @property
    def photos(self) -> tuple[Photo, ...]:
        """The usable photos in capture order."""
        return self.photo_set.photos

    @property
    def flight_log(self) -> str | None:
        """Sentence on how the places were found in a flight log."""
        return self.photo_set.flight_log

    @property
    def found(self) -> int:
        """Number of files that were offered as photos."""
        return len(self.photos) + len(self.rejected)
