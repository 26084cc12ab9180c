"""Cameras as their photos show them: which photos share one, which were cropped, and which cameras fail as a whole."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tasks.core.photoset import Photo
from tasks.core.safe_names import printable

FEWEST_SIZES = 4  # of a camera's photos, from which on they were cropped: cameras have two or three formats
SIZES_SHARE = 0.25  # sizes for one photo, the same: a folder of scans from one scanner has few
FEWEST_PHOTOS = 3  # of a camera that is judged for itself
MOST_FAILED_SHARE = 0.75  # of all photos, that may be of cameras that fail: a wide, a zoom and a thermal one
COMPARED_PAIRS = 3  # with the scene, a photo, after which a camera's photos have nothing in common with it


def largest_of_crops(photos: Iterable[Photo]) -> dict[str, float]:
    """Return the diagonal (px) of the largest photo of each camera whose photos were cropped, each in its own way.

    EXIF's focal length is that of the whole photo, which is at least as large.
    """
    sizes = defaultdict[str, list[tuple[int, int]]](list)
    for photo in photos:
        if photo.camera is not None:
            short, long = sorted((photo.width, photo.height))
            sizes[photo.camera].append((short, long))
    return {
        camera: max(math.hypot(*size) for size in of_camera)
        for camera, of_camera in sizes.items()
        if len(set(of_camera)) >= max(FEWEST_SIZES, SIZES_SHARE * len(of_camera))
    }


@dataclass(frozen=True)
class FailedCamera:
    """A camera none of whose photos is in the scene, although the others' photos are."""

    name: str
    photos: tuple[Photo, ...]


def failed_cameras(photos: Collection[Photo], placed: Collection[str], least_share: float) -> tuple[FailedCamera, ...]:
    """Return the cameras of which no photo was placed, if the others' photos alone make a scene.

    Args:
        photos: all of them.
        placed: names of those in the scene.
        least_share: of the others' photos that must be in the scene.
    """
    groups = defaultdict[tuple[str, int, int], list[Photo]](list)
    for photo in photos:
        short, long = sorted((photo.width, photo.height))
        groups[photo.camera or "", short, long].append(photo)
    failed = [
        FailedCamera(_name(group[0]), tuple(group))
        for group in groups.values()
        if len(group) >= FEWEST_PHOTOS and not any(photo.name in placed for photo in group)
    ]
    lost = sum(len(camera.photos) for camera in failed)
    others = len(photos) - lost
    if not lost or lost > MOST_FAILED_SHARE * len(photos) or len(placed) < max(least_share * others, FEWEST_PHOTOS):
        return ()
    return tuple(failed)


def _name(photo: Photo) -> str:
    made_by = printable(photo.camera) if photo.camera else "a camera without a name"
    return f"{made_by}, {photo.width}x{photo.height} px"
