"""What is known of photos before a run."""

import struct
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import PhotosError
from tasks.core.photos.headers import PhotoHeaders, read_headers
from tasks.core.photoset import Photo
from tasks.core.scene import IMAGES_FOLDER

POINTS_FILES = ("sparse/0/points3D.bin", "sparse/points3D.bin", "points3D.bin")


@dataclass(frozen=True)
class Capture:
    """Photos in capture order, as headers or the photos stage describe them."""

    photos: tuple[Photo, ...]
    given_points: int | None = None  # of a user's own COLMAP model, which takes the place of structure from motion
    is_given_model: bool = False

    @property
    def megapixels(self) -> float:
        """Of all photos."""
        return sum(photo.width * photo.height for photo in self.photos) / 1e6

    @classmethod
    def of_headers(cls, headers: PhotoHeaders) -> "Capture":
        """Of photos that are to be reconstructed."""
        return cls(headers.photos)

    @classmethod
    def of_given_model(cls, folder: Path) -> "Capture":
        """Of a folder with a COLMAP model and its `images`. Raises PhotosError when there are no images."""
        if not (folder / IMAGES_FOLDER).is_dir():
            raise PhotosError(f"{folder} has no folder 'images': put the photos of the COLMAP model there.")
        headers = read_headers(folder / IMAGES_FOLDER)
        return cls(headers.photos, _points(folder), is_given_model=True)


def _points(folder: Path) -> int | None:
    """How many points the model has, by the first bytes of points3D.bin; None where it is text."""
    for name in POINTS_FILES:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                head = file.read(8)
            return int(struct.unpack("<Q", head)[0]) if len(head) == 8 else None
    return None
