"""The files of a given model's images.

Image names in a model were written by another program: full paths, `..`, backslashes, another letter case, another
extension. Files are read below one folder alone, because the scene is published with its images, and written under safe
names.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.core.errors import FormatError, UnsafeNameError
from tasks.core.safe_names import safe_name, shown

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".avif")
)


@dataclass(frozen=True)
class Matches:
    """Images of a model and their files. Names are paths below `home`."""

    home: Path
    files: dict[int, tuple[str, Path]]  # path below `home` and file, by the image's number
    missing: tuple[int, ...]
    renamed: tuple[tuple[str, str], ...]  # a name in the model, and the different path that was taken for it


def match_images(names: dict[int, str], folder: Path) -> Matches:
    """Find the files of images, by their names in a model, below a folder.

    A name that is a full path of a file in the folder, or leaves it and returns, becomes that file's path below it.
    Files that have a name exactly come first. Others are taken where they differ in letter case or Unicode's
    normalisation only; and if most images have no file then, also where they differ in extension or folders. No other
    file and no other name may be meant.

    Raises:
        FormatError: two names are the same file, or one is outside of the folder, also by a link.
    """
    paths: dict[int, str] = {}
    files: dict[int, tuple[str, Path]] = {}
    seen: set[str] = set()
    for number, written in sorted(names.items(), key=lambda entry: entry[1]):
        path, file = _file_below(folder, written)
        if path in seen:
            raise FormatError(f"The model names {shown(path)} twice: each image needs one camera. Export it again.")
        seen.add(path)
        paths[number] = path
        with suppress(OSError):  # too long a name
            if file.is_file():
                files[number] = path, file
    wanted = {number: path for number, path in paths.items() if number not in files}
    loosely = _match_loosely(wanted, folder, {path for path, _ in files.values()}, len(paths)) if wanted else {}
    files.update({number: (path, folder / path) for number, path in loosely.items()})
    return Matches(
        home=folder,
        files=files,
        missing=tuple(number for number in paths if number not in files),
        renamed=tuple((names[number], path) for number, path in loosely.items()),
    )


def images_below(folder: Path) -> list[str]:
    """Return the paths of all image files below a folder, outside hidden folders; links that lead out are left out."""
    found: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(parent) / name
            if not is_image_name(name) or (file.is_symlink() and not is_below(folder, file)):
                continue
            with suppress(UnsafeNameError):
                path = file.relative_to(folder).as_posix()
                if safe_name(path) == path:
                    found.append(path)
    return found


def is_image_name(name: str) -> bool:
    """Whether a file counts as an image by its extension."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _match_loosely(wanted: dict[int, str], folder: Path, claimed: set[str], images: int) -> dict[int, str]:
    """Return the paths of files for names that no file has exactly, from the most to the least similar."""
    there = [path for path in images_below(folder) if path not in claimed]
    found: dict[int, str] = {}
    for key in (_folded, _without_extension, _file_name, _stem):
        left = {number: path for number, path in wanted.items() if number not in found}
        if key is not _folded and len(left) <= images / 2:
            break  # a few missing images: a mask or another camera's photo may have such a name
        taken = set(found.values())
        found.update(_unique(left, [path for path in there if path not in taken], key))
    return found


def _unique(wanted: dict[int, str], there: Iterable[str], key: Callable[[str], str]) -> dict[int, str]:
    """Return the pairs of a name and a file that have a key for themselves."""
    by_name: defaultdict[str, list[int]] = defaultdict(list)
    for number, path in wanted.items():
        by_name[key(path)].append(number)
    by_file: defaultdict[str, list[str]] = defaultdict(list)
    for path in there:
        by_file[key(path)].append(path)
    return {
        numbers[0]: by_file[word][0]
        for word, numbers in by_name.items()
        if len(numbers) == 1 and len(by_file.get(word, [])) == 1
    }


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _without_extension(path: str) -> str:
    """The folded path without the extension of an image."""
    folded = _folded(path)
    return str(PurePosixPath(folded).with_suffix("")) if is_image_name(PurePosixPath(folded).name) else folded


def _file_name(path: str) -> str:
    return PurePosixPath(_folded(path)).name


def _stem(path: str) -> str:
    return PurePosixPath(_without_extension(path)).name


def _file_below(folder: Path, written: str) -> tuple[str, Path]:
    """Return the path below the folder, which contains no links, and the file."""
    try:
        path = _path_below(folder, written)
    except UnsafeNameError as error:
        raise FormatError(
            f"The model cannot be used: {str(error).removesuffix('.')}. Only images in {folder} are read: put the "
            "photos there, and name them in the model by their paths below it."
        ) from error
    file = folder / path
    if "\\" in written:  # which may be part of a file's name
        with suppress(OSError):  # too long a name
            file = folder / written if (folder / written).is_file() else file
    if not is_below(folder, file):
        raise FormatError(
            f"{shown(path)} in {folder} is a link that leads out of that folder: put the photo itself there."
        )
    return path, file


def is_below(folder: Path, file: Path) -> bool:
    """Whether a file is below a folder once links have been followed."""
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder))


def _path_below(folder: Path, written: str) -> str:
    try:
        return safe_name(written)
    except UnsafeNameError as error:
        home = Path(os.path.realpath(folder))
        try:
            resolved = Path(os.path.realpath(home / written.replace("\\", "/")))
        except ValueError:  # a zero byte, or no text that a file's name can be
            raise error from None
        if not resolved.is_relative_to(home):
            raise
        return safe_name(resolved.relative_to(home).as_posix())
