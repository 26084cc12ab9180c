"""Sentences for the report on what is not believed, was left out, or makes the cameras doubtful."""

from collections import Counter
from collections.abc import Mapping

from tasks.core.photoset import FOCAL_LENGTHS_MM, Photo, PhotoSet
from tasks.core.safe_names import printable
from tasks.core.sfm.lenses import FailedCamera, largest_of_crops
from tasks.core.sfm.overlay import Mask


def of_exif(photos: PhotoSet) -> tuple[str, ...]:
    """Return sentences on EXIF values of the photos that are not believed."""
    doubted = sum(photo.focal_doubted for photo in photos.photos)
    shortest, longest = FOCAL_LENGTHS_MM
    said = (
        f"The focal length in EXIF of {doubted} of {len(photos.photos)} photos is not believed: no lens has less than "
        f"{shortest:.0f} or more than {longest:,.0f} mm (35 mm equivalent). It was found from the photos alone."
    )
    return ((said,) if doubted else ()) + of_crops(photos)


def of_crops(photos: PhotoSet) -> tuple[str, ...]:
    """Return a sentence for each camera whose photos were cropped."""
    return tuple(
        f"The photos of {printable(camera)} have {sizes} different sizes: they were cropped, each in its own way. "
        "EXIF does not tell where in the photo a crop was, so their cameras are less exact. Take the photos as the "
        "camera wrote them."
        for camera, sizes in (
            (camera, len({(p.width, p.height) for p in photos.photos if p.camera == camera}))
            for camera in largest_of_crops(photos.photos)
        )
    )


def of_overlays(overlays: Mapping[Photo, Mask]) -> tuple[str, ...]:
    """Return a sentence for each part that never changes. `overlays` has the photos that show it."""
    shares = {id(mask): float(mask.mean()) for mask in overlays.values()}
    counts = Counter(id(mask) for mask in overlays.values())
    return tuple(
        f"{100 * shares[number]:.2g} % of each of {count} photos never changes (a title, bars, a part of the vehicle "
        "…): left out of matching, of training and of the measured quality."
        for number, count in counts.items()
    )


def of_failed_cameras(failed: tuple[FailedCamera, ...], reasons: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each camera none of whose photos was placed."""
    found = []
    for camera in failed:
        [(reason, _)] = Counter(reasons[photo.name] for photo in camera.photos if photo.name in reasons).most_common(1)
        found.append(
            f"None of the {len(camera.photos)} photos of {camera.name} could be placed; the others' photos make the "
            f"scene. Most often: {reason}."
        )
    return tuple(found)


def of_parts(problems: tuple[str, ...]) -> tuple[str, ...]:
    """Return a sentence for each part of many photos that could not be mapped or merged."""
    return tuple(
        f"So many photos are mapped in parts, and {problem}: its photos were placed one by one, where they fit."
        for problem in problems
    )


def of_model(doubt: str) -> tuple[str, ...]:
    """Return a sentence on a model that its own numbers speak against, if `doubt` says so."""
    return (f"The cameras may be wrong: {doubt}.",) if doubt else ()


def of_flatness(flat: bool, focal_known: bool) -> tuple[str, ...]:
    """Return a sentence on a scene that is one plane, where EXIF does not tell the focal length."""
    said = (
        "All points of the scene are in one plane, and EXIF does not tell the focal length. It cannot be found from a "
        "plane seen straight on, so distances to it may be wrong: add slanted photos, or something with depth."
    )
    return (said,) if flat and not focal_known else ()
