"""Sizes of a given model's images against those of its cameras.

People keep smaller copies of their photos with the model of the large ones, so images of the same shape are taken and
the cameras scaled to them.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import FormatError
from tasks.core.image_file import ImageError, open_image, reading_image
from tasks.core.safe_names import shown
from tasks.core.sfm.model_outline import Outline

NOT_PERSPECTIVE = ("EQUIRECTANGULAR",)
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112

Size = tuple[int, int]  # width, height in px


@dataclass(frozen=True)
class GivenImage:
    """An image of a model, and its file."""

    number: int  # in the model
    camera: int  # in the model
    name: str  # its path below the scene's images
    file: Path
    size: Size  # of the file; EXIF's orientation is not applied, as in COLMAP


def images_in_words(count: int) -> str:
    """Return the number of images in words."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def image_size(path: Path) -> Size:
    """Return width and height as they are stored. Raises FormatError for a file that is no image."""
    try:
        with reading_image(), open_image(path) as image:
            return image.size
    except (ImageError, OSError) as error:
        raise FormatError(f"{shown(path.name)} cannot be read as an image: {error}.") from error


def fitting_sizes(outline: Outline, images: tuple[GivenImage, ...], notes: list[str]) -> dict[int, Size]:
    """Return the size of each camera's images, the largest where they differ.

    Raises FormatError where an image does not have the shape of its camera.
    """
    by_camera: defaultdict[int, list[GivenImage]] = defaultdict(list)
    for image in images:
        by_camera[image.camera].append(image)
    sizes: dict[int, Size] = {}
    scaled: Counter[tuple[Size, Size]] = Counter()
    for number, theirs in by_camera.items():
        camera = outline.cameras[number]
        if camera.model in NOT_PERSPECTIVE:
            raise FormatError(f"{theirs[0].name} has a {camera.model} camera; only perspective ones can be used.")
        largest = max((image.size for image in theirs), key=lambda size: (size[0] * size[1], size))
        expected = (camera.width or largest[0], camera.height or largest[1])
        for image in theirs:
            if not _same_shape(expected, image.size):
                raise FormatError(_other_shape(image, expected))
            if image.size != expected:
                scaled[image.size, expected] += 1
        sizes[number] = largest
    for ((width, height), (model_width, model_height)), count in scaled.items():
        notes.append(
            f"{images_in_words(count)} of {width}x{height} px for cameras of {model_width}x{model_height} px: focal "
            "lengths and principal points were scaled to the images."
        )
    return sizes


def _same_shape(first: Size, second: Size) -> bool:
    """Whether one size is the other, scaled, with each side rounded up or down to whole pixels."""
    (width, height), (other_width, other_height) = first, second
    if min(width, height) < 1:
        return True  # no image has such a size: the model's numbers are checked elsewhere
    across, along = other_width / width, other_height / height
    return abs(across - along) <= (1 / width + 1 / height) * max(across, 1.0)


def _other_shape(image: GivenImage, expected: Size) -> str:
    (width, height), (model_width, model_height) = image.size, expected
    says = f"{image.name} has {width}x{height} px, but the model's camera has {model_width}x{model_height}: "
    if _same_shape(expected, (height, width)) and _is_turned(image.file):
        return (
            says + "EXIF turns it, and the model was made of the turned image: save the images upright, without EXIF."
        )
    return says + "give the images that the model was made from, or scaled ones of the same shape."


def _is_turned(path: Path) -> bool:
    with reading_image(), open_image(path) as image:
        return image.getexif().get(ORIENTATION) in TURNED
