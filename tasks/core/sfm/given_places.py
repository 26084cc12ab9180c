"""Places of a user's own model and its images in a folder: the shapes that other programs leave."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tasks.core.safe_names import printable
from tasks.core.scene import IMAGES_FOLDER
from tasks.core.sfm.image_files import is_image_name
from tasks.core.sfm.model_outline import PARTS, SUFFIXES
from tasks.core.sfm.transforms_json import (
    CORRECTED_CAMERAS,
    POINTS_FILES,
    TRANSFORMS_FILE,
    find_polycam,
    find_transforms,
    why_unused,
)

# Folders that programs put a model into: COLMAP's own workspaces, nerfstudio, 3DGS's convert.py. The first of equals.
CONTAINERS = (".", "colmap", "undistorted", "dense", "dense/0", "distorted")
FLAT_CONTAINERS = (".", "colmap", "colmap_text", "sparse_txt", "text")
SPARSE = "sparse"
IMAGE_FOLDERS = (IMAGES_FOLDER, "input")  # the second is of convert.py: the photos before they were undistorted
DISTORTED = "distorted"
MOST_WRAPPERS = 3  # folders around a folder


def is_given_model(place: Path) -> bool:
    """Return whether a place is a user's own model: a folder with one, or the file transforms.json itself.

    Also True for an incomplete COLMAP model, or one that is half binary and half text: treated as photos, it would be
    ignored without a message.
    """
    if place.is_file():
        return place.suffix.lower() == ".json"
    return _has_model(given_folder(place))


def model_among(names: Iterable[str]) -> str | None:
    """Return where a model is among the files of an archive, by their names alone; None if there is none."""
    there = {PurePosixPath(name.replace("\\", "/")) for name in names}
    for name in sorted(there):
        siblings = {name.parent / f"{part}{suffix}" for part in PARTS[1:] for suffix in SUFFIXES}
        if name.name in {f"cameras{suffix}" for suffix in SUFFIXES} and len(siblings & there) >= len(PARTS[1:]):
            return str(name.parent)
        if name.suffix == ".json" and name.parent.name == CORRECTED_CAMERAS:
            return str(name.parent)
        if name.name == TRANSFORMS_FILE and any(name.parent / points in there for points in POINTS_FILES):
            return str(name)
    return None


def unused_model(place: Path) -> str | None:
    """Return a sentence on cameras in a folder of photos that are not used; None if there are none."""
    if not place.is_dir() or is_given_model(place):
        return None
    inner = sorted(path.name for path in _folders_in(place) if _has_model(path))
    if inner:
        return (
            f"{printable(inner[0])} contains a model with cameras, which was not used: to use it, name that folder in "
            f"place of {place}."
        )
    return why_unused(place)


def given_folder(place: Path) -> Path:
    """Return the folder of a given model.

    It may be named by its transforms.json, or by a folder around it that holds nothing else, as unpacking makes it.
    """
    if place.is_file():
        return place.parent
    folder = place
    for _ in range(MOST_WRAPPERS):
        inner = list(_folders_in(folder))
        if _has_model(folder) or len(inner) != 1 or _has_images(folder):
            break
        folder = inner[0]
    return folder if _has_model(folder) else place


def _has_model(folder: Path) -> bool:
    return bool(model_homes(folder)) or find_transforms(folder) is not None or find_polycam(folder) is not None


def folders_read(place: Path) -> list[Path]:
    """Return the folders that an import of a given model may read. Folders of images may be links."""
    folder = given_folder(place)
    return [folder, *image_roots(folder, folder)]


def model_homes(folder: Path) -> list[Path]:
    """Return all folders in which a COLMAP model may be: those with cameras and images, complete or not."""
    places: list[Path] = []
    for container in CONTAINERS:
        sparse = folder / container / SPARSE
        places += [*sorted(_folders_in(sparse), key=_numbered), sparse]
    places += [folder / container for container in FLAT_CONTAINERS]
    return [
        place
        for place in places
        if all(any((place / f"{part}{suffix}").is_file() for suffix in SUFFIXES) for part in PARTS[:2])
    ]


def image_roots(folder: Path, home: Path) -> tuple[Path, ...]:
    """Return the folders in which the images of a model may be.

    Those near its files are first; smaller copies of the images and flat exports are last.
    """
    names = IMAGE_FOLDERS[::-1] if DISTORTED in home.relative_to(folder).parts else IMAGE_FOLDERS
    bases = [home, *(parent for parent in home.parents if parent.is_relative_to(folder))]
    roots = [base / name for base in bases for name in names if (base / name).is_dir()]
    others = [path for path in sorted(_folders_in(folder)) if path not in roots and _has_images(path)]
    copies = sorted(filter(is_copy, others), key=lambda path: int(path.name.rpartition("_")[2]))
    return (*roots, *(path for path in others if path not in copies), *copies, *bases)


def is_copy(folder: Path) -> bool:
    """Return whether a folder has the name of smaller copies of images, such as images_2."""
    name, _, factor = folder.name.rpartition("_")
    return bool(name) and factor.isascii() and factor.isdecimal() and len(factor) < 4


def _folders_in(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder that can be read; none if there is no such folder."""
    with suppress(OSError):
        yield from (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_images(folder: Path) -> bool:
    with suppress(OSError):
        return any(is_image_name(path.name) for path in folder.iterdir())
    return False


def _numbered(path: Path) -> tuple[int, str]:
    """Order of the models in `sparse`: by number, then those with names."""
    return (int(path.name), "") if path.name.isdecimal() and len(path.name) < 10 else (1 << 40, path.name)
