"""Count digital zoom in focal lengths, where the camera has not done so."""

from collections import defaultdict
from collections.abc import Iterable

from tasks.core.photoset import Photo


def zoomed(photos: Iterable[Photo]) -> tuple[Photo, ...]:
    """Return the photos with focal lengths that include the digital zoom.

    EXIF does not say whether a focal length does (phones' equivalents do, some drones' do not). Photos of one camera
    that have the same focal length with different zooms show that it does not.
    """
    photos = tuple(photos)
    zooms = defaultdict[object, set[float]](set)
    for photo in photos:
        zooms[_camera(photo)].add(photo.digital_zoom)
    return tuple(_with_zoom(photo) if len(zooms[_camera(photo)]) > 1 else photo for photo in photos)


def _camera(photo: Photo) -> object:
    focal_px = None if photo.focal_px is None else round(photo.focal_px, 3)
    return photo.camera, photo.width, photo.height, focal_px


def _with_zoom(photo: Photo) -> Photo:
    if photo.focal_px is None:
        return photo
    return photo.model_copy(update={"focal_px": photo.focal_px * photo.digital_zoom})
