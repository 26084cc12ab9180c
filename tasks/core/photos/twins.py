"""Photos that the set has twice: equal files, and one picture in several files.

A telephone writes one picture as HEIC and as JPEG, programs write edited, smaller or re-encoded copies, and a camera on
a tripod repeats itself. All of them would weigh double in training, and a held-out photo whose twin is trained on says
nothing about quality.
"""

from pathlib import PurePosixPath

from tasks.core.photos.files import natural_order
from tasks.core.photos.likeness import alike, same_picture
from tasks.core.photos.pixels import StagedPhoto
from tasks.core.photoset import RejectedPhoto
from tasks.core.safe_names import printable, storable

SHAPE_TOLERANCE = 0.01  # of the ratio of sides: rounding when a photo is made smaller


def without_twins(staged: list[StagedPhoto]) -> tuple[list[StagedPhoto], list[RejectedPhoto]]:
    """Return the photos without copies, in the same order, and the copies with their reasons.

    Of equal files the first by name is kept. Of one picture in several files, that with the most pixels; then that
    with the most metadata, the shortest name, and that which can stay byte for byte.
    """
    first: dict[str, StagedPhoto] = {}
    twins: list[RejectedPhoto] = []
    for photo in staged:
        original = first.setdefault(photo.sha256, photo)
        if original is not photo:
            twins.append(_rejected(photo, f"byte-identical to {_shown(original)}"))
    files = list(first.values())
    others = alike([photo.thumbnail for photo in files])
    best: set[int] = set()  # numbers of photos
    for number in sorted(range(len(files)), key=lambda number: _preference(files[number])):
        photo = files[number]
        same = next((other for other in others[number] if other in best and _same(photo, files[other])), None)
        if same is None:
            best.add(number)
        else:
            twins.append(_rejected(photo, f"the same picture as {_shown(files[same])}"))
    return [photo for number, photo in enumerate(files) if number in best], twins


def _same(photo: StagedPhoto, other: StagedPhoto) -> bool:
    shape, other_shape = photo.width / photo.height, other.width / other.height
    return abs(shape / other_shape - 1) <= SHAPE_TOLERANCE and same_picture(photo.thumbnail, other.thumbnail)


def _preference(photo: StagedPhoto) -> tuple[object, ...]:
    """Sort key: what is best comes first."""
    exif = photo.exif
    known = sum(fact is not None for fact in (exif.camera, exif.focal_px, exif.taken_at, exif.gps))
    name = PurePosixPath(photo.offered.name)
    return -photo.width * photo.height, -known, len(name.stem), not photo.kept, natural_order(photo.offered.name)


def _rejected(photo: StagedPhoto, reason: str) -> RejectedPhoto:
    return RejectedPhoto(name=_shown(photo), reason=reason)


def _shown(photo: StagedPhoto) -> str:
    return printable(storable(photo.offered.name))
