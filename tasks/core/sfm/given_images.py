"""The images of a user's own COLMAP model: which file each one is, and the name it gets in the scene.

Names in a model are what another program wrote: full paths, `..`, backslashes. Files are read below the model's folder
`images` alone, because the scene is published with its images, and written below the scene's under safe names.
"""

import os
from contextlib import suppress
from pathlib import Path

import pycolmap

from tasks.core.errors import FormatError, UnsafeNameError
from tasks.core.safe_names import TakenNames, safe_name, shown


def name_images(model: pycolmap.Reconstruction, images: Path) -> dict[str, Path]:
    """Rename the model's registered images to paths below a scene's `images`; by new name, the file to read.

    A name that is a full path of a file in `images`, or climbs and comes back there, becomes that file's path below
    it. Files need not exist.

    Raises:
        FormatError: a name is no text, two are the same file, or one leads out of `images`, be it by a link.
    """
    home = Path(os.path.realpath(images))
    paths: set[str] = set()  # below `images`
    taken = TakenNames()
    sources: dict[str, Path] = {}
    for number in sorted(model.reg_image_ids(), key=lambda i: image_name(model.image(i))):
        image = model.image(number)
        written = image_name(image)
        path, file = _file_below(home, written)
        if path in paths:
            raise FormatError(f"The model names {shown(path)} twice: each image needs one camera. Export it again.")
        paths.add(path)
        image.name = taken.take(path)
        sources[image.name] = file
    return sources


def image_name(image: pycolmap.Image) -> str:
    """The name that the model gives an image. Raises FormatError where it is not UTF-8."""
    try:
        return str(image.name)
    except UnicodeDecodeError as error:
        raise FormatError(
            f"The name of image {image.image_id} in the model is not UTF-8 ({error.reason}): rename the photo and "
            "export the model again."
        ) from error


def _file_below(home: Path, written: str) -> tuple[str, Path]:
    """The path below `home`, which has no links in it, and the file."""
    try:
        path = _path_below(home, written)
    except UnsafeNameError as error:
        raise FormatError(
            f"The model cannot be used: {str(error).removesuffix('.')}. Only images in {home} are read: put the photos "
            "there, and name them in the model by their paths below it."
        ) from error
    file = home / path
    if "\\" in written:  # which may be part of a file's name
        with suppress(OSError):  # too long a name
            file = home / written if (home / written).is_file() else file
    if not Path(os.path.realpath(file)).is_relative_to(home):
        raise FormatError(
            f"{shown(path)} in {home} is a link that leads out of that folder: put the photo itself there."
        )
    return path, file


def _path_below(home: Path, written: str) -> str:
    try:
        return safe_name(written)
    except UnsafeNameError:
        if "\0" in written:
            raise
        resolved = Path(os.path.realpath(home / written.replace("\\", "/")))
        if not resolved.is_relative_to(home):
            raise
        return safe_name(resolved.relative_to(home).as_posix())
