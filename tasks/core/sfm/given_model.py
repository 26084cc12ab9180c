"""A user's own model in a folder: where its files and images are, and what of them can be used.

Everything here is known within a second or two and without pycolmap, so that a folder which cannot be used is refused
before a run begins. What was chosen, scaled or left out becomes sentences, for the report.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from tasks.core.errors import FormatError, InputError
from tasks.core.safe_names import TakenNames, printable
from tasks.core.sfm.given_places import IMAGE_FOLDERS, given_folder, image_roots, is_copy, model_homes
from tasks.core.sfm.image_files import Matches, images_below, is_below, is_image_name, match_images
from tasks.core.sfm.image_sizes import GivenImage, Size, fitting_sizes, image_size, images_in_words
from tasks.core.sfm.model_outline import (
    OPTIONAL_PARTS,
    PARTS,
    SUFFIXES,
    Outline,
    OutlineCamera,
    model_suffix,
    read_outline,
)
from tasks.core.sfm.transforms_json import (
    POINTS_FILES,
    TRANSFORMS_FILE,
    PosedFrames,
    find_polycam,
    find_transforms,
    polycam_images,
    read_polycam,
    read_transforms,
)

MIN_CAMERAS = 3
LEAST_SHARE = 0.5  # of the model's images that must be there
LEAST_POINTS = 20  # with which training can begin
NAMED_IMAGES = 5

Form = Literal["colmap", "transforms", "polycam"]


@dataclass(frozen=True)
class GivenModel:
    """What an import uses of a folder."""

    folder: Path  # that was given
    home: Path  # folder of COLMAP's files or of Polycam's cameras, or the transforms.json
    form: Form
    images: tuple[GivenImage, ...]  # by name
    missing: tuple[str, ...]  # the model's names of images without a file
    sizes: dict[int, Size]  # of the images of each camera, which its numbers are scaled to
    points: int | None  # None where they are in `points_file`
    points_file: Path | None
    notes: tuple[str, ...]  # sentences for the report

    @property
    def files(self) -> list[Path]:
        """All files that the import reads."""
        images = [image.file for image in self.images]
        return [*_model_files(self.home, self.form), *([self.points_file] if self.points_file else []), *images]

    @property
    def label(self) -> str:
        """The path of the model's files below the folder."""
        return _label(self.folder, self.home)

    @property
    def lacks_points(self) -> bool:
        """Whether points have to be triangulated; a .ply has to be read to know it."""
        return self.points is not None and self.points < LEAST_POINTS


@dataclass(frozen=True)
class _Found:
    """A model and its files, before they are looked at."""

    home: Path
    form: Form
    outline: Outline
    matches: Matches | None
    refusal: InputError | None = None
    frames: PosedFrames | None = None

    @property
    def usable(self) -> int:
        return 0 if self.matches is None else len(self.matches.files)


def read_given(place: Path) -> GivenModel:
    """Look at a user's own model: its cameras, its images and their files.

    Raises:
        FormatError: it is incomplete, does not fit its images, or most of them are missing.
        InputError: there are no images.
    """
    folder = given_folder(place)
    notes: list[str] = []
    found = _transforms(place, folder) if place.is_file() else _best(folder, notes)
    if found.refusal is not None:
        raise found.refusal
    matches = found.matches
    assert matches is not None
    _require_images(found, matches)
    if missing := [found.outline.names[number] for number in matches.missing]:
        count = f"{len(missing)} of the model's {len(found.outline.names)} images"
        where = _label(folder, matches.home)
        notes.append(f"{count} {_are(missing)} not in {where} and {_were(missing)} left out: {_some(missing)}.")
    if matches.renamed:
        written, taken = matches.renamed[0]
        differ = "has a name that differs" if len(matches.renamed) == 1 else "have names that differ"
        notes.append(
            f"{images_in_words(len(matches.renamed))} {differ} from the model's in letter case, extension or folder: "
            f"{printable(taken)} was taken for {printable(written)}."
        )
    if found.frames is not None and found.frames.masks:
        notes.append(f"The masks of {images_in_words(found.frames.masks)} were not used.")
    root = _root(found, matches)
    images = _given_images(found, matches, root)
    sizes = fitting_sizes(found.outline, images, notes)
    points, points_file = found.outline.points, None
    if found.form == "transforms":
        points_file = _points_file(found, notes)
    notes += _left_out(folder, root, len(images))
    return GivenModel(
        folder=folder,
        home=found.home,
        form=found.form,
        images=images,
        missing=tuple(missing),
        sizes=sizes,
        points=None if points_file else points,
        points_file=points_file,
        notes=tuple(notes),
    )


def read_frames(home: Path, form: Form) -> PosedFrames:
    """Read the cameras of a model that is not COLMAP's. Raises FormatError."""
    return read_polycam(home) if form == "polycam" else read_transforms(home)


def _best(folder: Path, notes: list[str]) -> _Found:
    """Return the model with most images that are there; the first of equals."""
    homes = [home for home in model_homes(folder) if model_suffix(home) is not None]
    transforms, polycam = find_transforms(folder), find_polycam(folder)
    if not homes:
        if transforms is not None:
            return _transforms(transforms, folder)
        if polycam is not None:
            return _from_frames(polycam, "polycam", (polycam_images(polycam),))
        place = next(iter(model_homes(folder)), None)
        where = f"{_label(folder, place)} needs" if place is not None else "sparse/0 needs"
        raise FormatError(
            f"{folder} holds no complete COLMAP model: {where} cameras, images and points3D, all .bin or all .txt."
        )
    models = [_colmap(folder, home) for home in homes]
    best = max(models, key=lambda found: found.usable)
    if best.usable < MIN_CAMERAS and transforms is not None:  # a model of other images
        return _transforms(transforms, folder)
    if others := [found for found in models if found is not best]:
        theirs = ", ".join(
            f"{_label(folder, found.home)} "
            + (f"has {len(found.outline.names)}" if found.outline.names else "cannot be read")
            for found in others
        )
        notes.append(
            f"{_label(folder, best.home)} with {images_in_words(len(best.outline.names))} was taken; {theirs}."
        )
    if (folder / TRANSFORMS_FILE).is_file():
        notes.append(
            f"{_label(folder, best.home)} was taken and {TRANSFORMS_FILE} was not: COLMAP's model also contains which "
            "image shows which point."
        )
    return best


def _colmap(folder: Path, home: Path) -> _Found:
    try:
        outline = read_outline(home)
    except FormatError as error:
        return _Found(home, "colmap", Outline({}, {}, {}, 0), None, error)
    return _matched(_Found(home, "colmap", outline, None), image_roots(folder, home))


def _transforms(file: Path, folder: Path) -> _Found:
    return _from_frames(file, "transforms", (folder, *image_roots(folder, folder)))


def _from_frames(home: Path, form: Form, roots: tuple[Path, ...]) -> _Found:
    frames = read_frames(home, form)
    outline = Outline(
        cameras={
            number: OutlineCamera(each.model, each.width, each.height) for number, each in enumerate(frames.cameras, 1)
        },
        names={number: frame.name for number, frame in enumerate(frames.frames, 1)},
        camera_of={number: frame.camera + 1 for number, frame in enumerate(frames.frames, 1)},
        points=0,
    )
    return _matched(_Found(home, form, outline, None, frames=frames), roots)


def _matched(found: _Found, roots: tuple[Path, ...]) -> _Found:
    """Add the files in the folder that contains most of the images; the first of equals.

    A name that leads out of the first folder is refused, unless another folder has the files of exactly these names.
    """
    best: Matches | None = None
    refusal: FormatError | None = None
    for root in roots:
        try:
            matches = match_images(found.outline.names, root)
        except FormatError as error:
            refusal = refusal or error
            continue
        if best is None or _closeness(matches) > _closeness(best):
            best = matches
        if _is_exact(matches):
            break
    if refusal is not None and not (best is not None and _is_exact(best)):
        return replace(found, refusal=refusal)
    if best is None or not best.files:
        named = [root for root in roots if root.name in IMAGE_FOLDERS]
        if best is None or not named:
            folder = roots[-1] if roots else found.home
            return replace(
                found,
                refusal=InputError(
                    f"{folder} has no folder 'images': put the photos that the model was made from there."
                ),
            )
    return replace(found, matches=best)


def _closeness(matches: Matches) -> tuple[int, int]:
    """Rank of a folder: by the images with the model's names, where they are half of all, then by all that are in it.

    Otherwise a folder further up would be preferred for a few names that another file happens to have.
    """
    exact = len(matches.files) - len(matches.renamed)
    is_usual = exact >= LEAST_SHARE * (len(matches.files) + len(matches.missing))
    return exact if is_usual else 0, len(matches.files)


def _is_exact(matches: Matches) -> bool:
    """Whether all images are there, under the model's names."""
    return not matches.missing and not matches.renamed


def _require_images(found: _Found, matches: Matches) -> None:
    """Raise FormatError where the model has too few cameras, or too few of its images are there."""
    names = found.outline.names
    if len(names) < MIN_CAMERAS:
        raise FormatError(f"The model in {found.home} has {len(names)} cameras with a pose; need {MIN_CAMERAS}.")
    needed = max(MIN_CAMERAS, LEAST_SHARE * len(names))
    if len(matches.files) < needed:
        lost = [names[number] for number in matches.missing]
        raise FormatError(
            f"{len(lost)} of the model's {len(names)} images are not in {matches.home}: {_some(lost)}. At least "
            f"{MIN_CAMERAS} and half of them are needed: put them there, under the names that the model gives them."
        )


def _root(found: _Found, matches: Matches) -> Path:
    """Return the folder of the images: in COLMAP names are paths below it, elsewhere below the file of the cameras."""
    if found.form == "colmap":
        return matches.home
    parents = [matches.home / PurePosixPath(path).parent for path, _ in matches.files.values()]
    return Path(os.path.commonpath(parents))


def _given_images(found: _Found, matches: Matches, root: Path) -> tuple[GivenImage, ...]:
    """Return the images by name, with names below `root` that are unique without regard to letter case."""
    taken = TakenNames()
    images = []
    for number, (path, file) in sorted(matches.files.items(), key=lambda entry: entry[1][0]):
        name = taken.take((matches.home / path).relative_to(root).as_posix())
        camera = found.outline.camera_of[number]
        if camera not in found.outline.cameras:
            raise FormatError(f"Image {number} of the model has camera {camera}, which is not in it: export it again.")
        images.append(GivenImage(number, camera, name, file, image_size(file)))
    return tuple(images)


def _points_file(found: _Found, notes: list[str]) -> Path | None:
    """Return the .ply with the points of a transforms.json, which is read below its folder alone."""
    assert found.frames is not None
    folder, named = found.home.parent, found.frames.points_file
    for name in (named, *POINTS_FILES):
        file = None if name is None else folder / name.replace("\\", "/")
        if file is not None and file.is_file() and is_below(folder, file):
            return file
    if named is not None:
        notes.append(f"{printable(named)}, which {found.home.name} names for its points, is not there.")
    return None


def _left_out(folder: Path, root: Path, used: int) -> Iterator[str]:
    """Sentences on images in the folder that are not used."""
    is_flat = root == folder
    there = len([path for path in root.iterdir() if is_image_name(path.name)] if is_flat else images_below(root))
    if (others := there - used) > 0:
        yield (
            f"{others:,} of the {there:,} images in {_label(folder, root)} {'is' if others == 1 else 'are'} not in the "
            f"model: without a camera {'it was' if others == 1 else 'they were'} left out."
        )
    beside = [] if is_flat else [path for path in root.parent.iterdir() if path.is_dir() and is_copy(path)]
    if copies := sorted(path.name for path in beside if path.name.rpartition("_")[0] == root.name):
        yield f"{' and '.join(copies)} {_were(copies)} left out: the same images in other sizes as in {root.name}."


def _model_files(home: Path, form: Form) -> list[Path]:
    if form == "transforms":
        return [home]
    if form == "polycam":
        return sorted(home.glob("*.json"))
    parts = (home / f"{part}{suffix}" for part in (*PARTS, *OPTIONAL_PARTS) for suffix in SUFFIXES)
    return [path for path in parts if path.is_file()]


def _label(folder: Path, place: Path) -> str:
    """Return the path of a place below the folder, for people."""
    path = place.relative_to(folder).as_posix()
    return "the folder itself" if path == "." else printable(path)


def _some(names: list[str]) -> str:
    more = " …" if len(names) > NAMED_IMAGES else ""
    return ", ".join(printable(name) for name in sorted(names)[:NAMED_IMAGES]) + more


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _were(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"
