"""Second half of the sfm stage: a scene with undistorted images, from cameras and photos.

A worker calculates where each pixel comes from (a grid of source positions for each camera), and this process moves the
pixels with Pillow. It never loads pycolmap: encoding images with Pillow beside pycolmap's own image library, in one
process, has ended in an abort. Pillow decodes JPEG at the scale needed, for a fraction of the cost of warping whole
photos. Positions are in pixels, (0, 0) is the image's corner.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.errors import FormatError
from tasks.core.image_file import ImageError, open_image, reading_image
from tasks.core.measurements import SfmSection
from tasks.core.pixels.levels import Levels, LevelSample, common_levels, sample_levels
from tasks.core.pixels.plain import Change, change_notes, kind_of, plain
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.safe_names import below, shown
from tasks.core.scene import HIDDEN_FILE, IMAGES_FOLDER, load_masks, save_masks
from tasks.core.sfm.process import WORKER_PERCENT, run_worker
from tasks.core.sfm.worker import OVERLAY_FILE, PLAN_FILE, Job, SceneJob

SUPERSAMPLING = 2  # the warp runs at twice the resolution, then 2x2 pixels are averaged: no aliasing
JPEG_QUALITY = 96
Given = TypeVar("Given")
Done = TypeVar("Done")
Mask = NDArray[np.bool_]
AS_NAMED = ("PNG", "WEBP", "TIFF", "BMP")  # a photo of any other name becomes a JPEG: a GIF has 256 colours


@dataclass(frozen=True)
class Warp:
    """The undistortion of one camera's images."""

    source_width: int
    source_height: int
    width: int
    height: int
    cell: int  # px of the undistorted image between nodes of the grid; positions between them are bilinear
    sources: NDArray[np.float64]  # [R+1, C+1, 2] x, y in the source image, of the nodes


def undistort_scene(cameras: Path, photos: Path, out: Path, image_size: int, on_progress: ProgressCallback) -> None:
    """Write a Scene folder.

    Args:
        cameras: what `find_cameras` wrote.
        photos: the photo set that it found them in.
        out: an empty or missing folder; receives the scene (tasks.core.scene) and `sfm.log`.
        image_size: long side of the undistorted images, at most (px).
        on_progress: told percent of the whole stage, from WORKER_PERCENT on.

    Raises what `run_worker` raises, and FormatError for a photo that is damaged.
    """
    make_scene(
        SceneJob(source=photos.resolve(), cameras=cameras.resolve(), out=out.resolve(), image_size=image_size),
        on_progress,
        load_masks(cameras / OVERLAY_FILE),
    )


def make_scene(job: Job, on_progress: ProgressCallback, hidden: Mapping[str, Mask] | None = None) -> SfmSection | None:
    """Write the scene that the job asks for, with its images; return what the worker measured.

    `hidden` are masks of what shows no place in the photos, by name, each as large as a small copy of its photo.

    Raises what `undistort_scene` raises.
    """
    job.work.mkdir(parents=True, exist_ok=True)
    try:
        section = run_worker(job, on_progress)
        plan = read_plan(job.work / PLAN_FILE)
        images = job.out / IMAGES_FOLDER
        copied = [path for path in sorted(images.rglob("*")) if path.is_file()]  # of a given model, as they are
        ranges = _ranges([*copied, *(step.source for step in plan.values())])
        changes = make_plain(copied, ranges)

        def report(done: int) -> None:
            percent = WORKER_PERCENT + (100 - WORKER_PERCENT) * done / len(plan)
            on_progress(Progress(percent, 100, f"undistorted {done}/{len(plan)} images"))

        changes += undistort_photos(
            [(step.source, below(images, name), step.warp) for name, step in plan.items()], report, ranges
        )
        save_masks(job.out / HIDDEN_FILE, undistort_masks(hidden or {}, plan))
        notes = change_notes([change for change in changes if change is not None], "image")
        if section is None or not notes:
            return section
        return section.model_copy(update={"degradations": (*section.degradations, *notes)})
    finally:
        shutil.rmtree(job.work, ignore_errors=True)


def grid_nodes(width: int, height: int, cell: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns [C+1] and rows [R+1] of the grid's nodes in the undistorted image; the last cells may be smaller."""
    return np.array([*range(0, width, cell), width]), np.array([*range(0, height, cell), height])


@dataclass(frozen=True)
class Step:
    """One image of the plan: the photo to read, and how to undistort it."""

    source: Path
    warp: Warp


def write_plan(path: Path, warps: dict[str, Warp], sources: dict[str, Path]) -> None:
    """Store, by image name, the photo to read and how to undistort it.

    Images of one camera share a warp, which is stored once.
    """
    distinct = list({id(warp): warp for warp in warps.values()}.values())
    numbers = {id(warp): number for number, warp in enumerate(distinct)}
    arrays: dict[str, NDArray[Any]] = {f"sources{number}": warp.sources for number, warp in enumerate(distinct)}
    arrays["sizes"] = np.array(
        [(w.source_width, w.source_height, w.width, w.height, w.cell) for w in distinct], np.int64
    )
    arrays["names"] = np.array(list(warps), dtype=np.str_)
    arrays["photos"] = np.array([str(sources[name]) for name in warps], dtype=np.str_)
    arrays["warps"] = np.array([numbers[id(warp)] for warp in warps.values()], dtype=np.int64)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_plan(path: Path) -> dict[str, Step]:
    """Read what `write_plan` stored."""
    with np.load(path, allow_pickle=False) as arrays:
        sizes: list[tuple[int, int, int, int, int]] = [tuple(size) for size in arrays["sizes"].tolist()]
        warps = [Warp(*size, arrays[f"sources{number}"]) for number, size in enumerate(sizes)]
        entries = zip(arrays["names"], arrays["photos"], arrays["warps"], strict=True)
        return {str(name): Step(Path(str(photo)), warps[number]) for name, photo, number in entries}


def undistort_photo(source: Path, target: Path, warp: Warp, levels: Levels | None = None) -> Change | None:
    """Read a photo, undistort it, and store it in the format of the target's suffix, else as JPEG.

    source: as large as `warp` says. The photo is scaled to twice the target's resolution first, where it is larger.
    `levels` are black and white of its set, if it has more than 8 bits of grey. Returns how its colours were changed.
    """
    sources = np.clip(warp.sources, 0, [warp.source_width, warp.source_height])
    scale = min(1.0, SUPERSAMPLING * _magnification(warp))
    working = (max(round(warp.source_width * scale), 1), max(round(warp.source_height * scale), 1))
    with open_image(source) as image:
        kind = kind_of(image).at(levels)
        if kind.plain:
            image.draft("RGB", working)  # JPEG only: decodes at 1/2, 1/4 or 1/8, never below the working size
        picture, transparent = plain(image, kind, levels, lambda: open_image(source))
        photo = picture.convert("RGB")
    if photo.size != working:
        photo = photo.resize(working, Image.Resampling.LANCZOS)
    sources = sources * np.divide(working, [warp.source_width, warp.source_height])
    large = (warp.width * SUPERSAMPLING, warp.height * SUPERSAMPLING)
    undistorted = photo.transform(large, Image.Transform.MESH, _mesh(warp, sources), Image.Resampling.BICUBIC)
    target.parent.mkdir(parents=True, exist_ok=True)
    _store(undistorted.reduce(SUPERSAMPLING), target)
    return None if kind.plain and not kind.colours.fault else Change(source.name, kind, transparent, levels)


def _store(picture: Image.Image, target: Path) -> None:
    named = Image.registered_extensions().get(target.suffix.lower())
    if named == "PNG":
        picture.save(target, named, compress_level=3)
    else:
        picture.save(target, named if named in AS_NAMED else "JPEG", quality=JPEG_QUALITY, subsampling=0)


def undistort_masks(masks: Mapping[str, Mask], plan: Mapping[str, Step]) -> dict[str, Mask]:
    """Return the masks of the plan's images [height, width], a pixel set where the mask of the photo is near it."""
    made: dict[tuple[int, int], Mask] = {}
    found = {}
    for name, step in plan.items():
        if name not in masks:
            continue
        key = id(masks[name]), id(step.warp)
        if key not in made:
            made[key] = _undistorted_mask(masks[name], step.warp)
        found[name] = made[key]
    return found


def _undistorted_mask(mask: Mask, warp: Warp) -> Mask:
    rows, columns = mask.shape
    sources = np.clip(warp.sources, 0, [warp.source_width, warp.source_height])
    sources = sources * np.divide((columns, rows), [warp.source_width, warp.source_height])
    shown = Image.fromarray(mask.astype(np.uint8) * 255)
    large = (warp.width * SUPERSAMPLING, warp.height * SUPERSAMPLING)
    undistorted = shown.transform(large, Image.Transform.MESH, _mesh(warp, sources), Image.Resampling.BILINEAR)
    return np.asarray(np.asarray(undistorted.reduce(SUPERSAMPLING)) > 0)


def undistort_photos(
    jobs: list[tuple[Path, Path, Warp]], on_done: Callable[[int], None], ranges: dict[Path, Levels] | None = None
) -> list[Change | None]:
    """Call `undistort_photo` for all (source, target, warp), on all cores; `on_done` receives how many are finished.

    ranges: black and white of sources with more than 8 bits of grey. Raises FormatError for a photo that is damaged.
    """

    def undistort(job: tuple[Path, Path, Warp]) -> Change | None:
        with _reading(job[0]):
            return undistort_photo(*job, (ranges or {}).get(job[0]))

    return _for_all(undistort, jobs, on_done)


def make_plain(images: list[Path], ranges: dict[Path, Levels]) -> list[Change | None]:
    """Decode images that are used as they are, on all cores, and store those anew whose colours are not plain.

    Raises FormatError for one that is damaged.
    """

    def rewrite(path: Path) -> Change | None:
        with _reading(path), open_image(path) as image:
            kind = kind_of(image).at(ranges.get(path))
            if kind.plain:
                image.load()
                return Change(path.name, kind, False, None) if kind.colours.fault else None
            picture, transparent = plain(image, kind, ranges.get(path), lambda: open_image(path))
        _store(picture, path)
        return Change(path.name, kind, transparent, ranges.get(path))

    return _for_all(rewrite, images, lambda _: None)


def _ranges(images: Iterable[Path]) -> dict[Path, Levels]:
    """Return black and white of all images of more than 8 bits, which those of grey and of colour have in common."""
    found: dict[bool, list[Path]] = {}
    for path in images:
        with _reading(path), open_image(path) as image:
            kind = kind_of(image)
        if kind.deep:
            found.setdefault(kind.deep_colour, []).append(path)

    def sample(path: Path) -> LevelSample:
        with _reading(path), open_image(path) as image:
            image.load()
            return sample_levels(image)

    ranges: dict[Path, Levels] = {}
    for paths in found.values():
        ranges |= dict.fromkeys(paths, common_levels(_for_all(sample, paths, lambda _: None)))
    return ranges


def _for_all(do: Callable[[Given], Done], jobs: list[Given], on_done: Callable[[int], None]) -> list[Done]:
    results: list[Done] = []
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for result in pool.map(do, jobs):
            results.append(result)
            on_done(len(results))
        return results
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _reading(photo: Path) -> Iterator[None]:
    """Turn exceptions of decoders for a damaged photo into FormatError."""
    try:
        with reading_image():
            yield
    except ImageError as error:
        raise FormatError(f"{shown(photo.name)}: {error}. Copy it again, or leave it out.") from error


def _magnification(warp: Warp) -> float:
    """Return target pixels for one source pixel, along the grid's middle row."""
    row = warp.sources[len(warp.sources) // 2]
    return float(warp.width / max(float(np.abs(row[-1, 0] - row[0, 0])), 1e-9))


def _mesh(warp: Warp, sources: NDArray[np.float64]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Pillow's mesh: target box and source corners (north-west, south-west, south-east, north-east) of each cell."""
    columns, rows = (nodes * SUPERSAMPLING for nodes in grid_nodes(warp.width, warp.height, warp.cell))
    corners = np.concatenate([sources[:-1, :-1], sources[1:, :-1], sources[1:, 1:], sources[:-1, 1:]], axis=-1)
    return [
        ((int(columns[j]), int(rows[i]), int(columns[j + 1]), int(rows[i + 1])), tuple(corners[i, j].tolist()))
        for i in range(len(rows) - 1)
        for j in range(len(columns) - 1)
    ]
