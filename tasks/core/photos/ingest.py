"""Turn a folder or a .zip into a checked, de-duplicated, ordered photo set on disk."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from tasks.core.errors import PhotosError, UnsafeNameError
from tasks.core.image_file import ImageError
from tasks.core.photos.archive import require_archive, unpack
from tasks.core.photos.files import Offered, folder_content, natural_order
from tasks.core.photos.flight_log import find_log, read_flight_log
from tasks.core.photos.log_match import place_photos
from tasks.core.photos.memory import MemoryBudget
from tasks.core.photos.options import PhotosOptions
from tasks.core.photos.other_files import count_kinds
from tasks.core.photos.pixels import DeepPhoto, StagedPhoto, stage_or_sample, stage_photo
from tasks.core.photos.twins import without_twins
from tasks.core.photos.zoom import zoomed
from tasks.core.photoset import IMAGES_FOLDER, PHOTOS_FILE, CheckedPhotos, Photo, PhotoSet, RejectedPhoto
from tasks.core.pixels.levels import COLOUR, Levels, common_levels
from tasks.core.pixels.plain import change_notes
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.safe_names import WANTED_NAME_BYTES, TakenNames, below, printable, safe_name, storable

MIN_PHOTOS = 3
STAGING_FOLDER = ".staging"
NAMED_REJECTIONS = 3


def ingest(source: Path, out: Path, options: PhotosOptions, on_progress: ProgressCallback) -> CheckedPhotos:
    """Read all photos of `source`, and write `images/` and `photos.json` into the empty folder `out`.

    Args:
        source: a folder (searched recursively) or a .zip.
        out: an empty or missing folder; left empty when the stage fails.
        options: what is accepted.
        on_progress: told the number of photos checked.

    Returns:
        The stored photo set and what was rejected. Photos are in order of capture time where all of them have one, else
        in natural name order.

    Raises:
        PhotosError: there is no such source, it is unsafe or unreadable, fewer than 3 photos are usable, or the
            flight log cannot be read or does not belong to them.
    """
    staging = out / STAGING_FOLDER
    staging.mkdir(parents=True, exist_ok=True)
    try:
        folder, refused = _as_folder(source, staging / "unpacked", options)
        log_file = find_log(options.flight_log, folder) if options.flight_log else None
        log = read_flight_log(log_file) if log_file else ()
        content = folder_content(folder)
        staged, rejected = _stage_all(content.photos, staging, options, on_progress)
        unique, twins = without_twins(staged)
        photos = CheckedPhotos(
            photo_set=PhotoSet(photos=zoomed(_place(_in_capture_order(unique), out / IMAGES_FOLDER))),
            rejected=tuple(sorted([*refused, *rejected, *twins], key=lambda photo: natural_order(photo.name))),
            not_read=count_kinds(name for name in content.others if folder / name != log_file),
            notes=tuple(change_notes([photo.change for photo in unique], "photo")),
        )
        _require_enough(source, photos)
        if log:
            placed, how = place_photos(photos.photos, log)
            photos = photos.model_copy(update={"photo_set": PhotoSet(photos=placed, flight_log=how)})
        photos.photo_set.save(out)
    except BaseException:
        shutil.rmtree(out / IMAGES_FOLDER, ignore_errors=True)
        (out / PHOTOS_FILE).unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return photos


def _as_folder(source: Path, unpacked: Path, options: PhotosOptions) -> tuple[Path, list[RejectedPhoto]]:
    """The folder that holds the source's files, and photos that are not in it; a .zip is unpacked first."""
    if source.is_dir():
        if not os.access(source, os.R_OK | os.X_OK):
            raise PhotosError(f"{source} cannot be read: give its owner's permission to read it.")
        return source, []
    require_archive(source)
    unpacked.mkdir()
    return unpacked, unpack(source, unpacked, options)


Outcome = StagedPhoto | DeepPhoto | RejectedPhoto


def _stage_all(
    offered: Sequence[Offered], staging: Path, options: PhotosOptions, on_progress: ProgressCallback
) -> tuple[list[StagedPhoto], list[RejectedPhoto]]:
    """Check and store all photos on all cores (Pillow decodes without the interpreter's lock).

    Photos with more than 8 bits of grey are decoded twice: the first time only to find the range of their set.
    """
    memory = MemoryBudget()
    done = 0

    def first(numbered: tuple[int, Offered]) -> Outcome:
        index, photo = numbered
        return _or_rejected(photo, lambda: stage_or_sample(photo, staging / f"{index:06d}", options, memory))

    def count(result: Outcome) -> Outcome:
        nonlocal done
        if not isinstance(result, DeepPhoto):
            done += 1
            on_progress(Progress(done, len(offered), f"checked {done}/{len(offered)} photos"))
        return result

    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        found = [count(result) for result in pool.map(first, enumerate(offered))]
        levels = _levels_of_sets([photo for photo in found if isinstance(photo, DeepPhoto)])

        def second(result: Outcome) -> Outcome:
            if not isinstance(result, DeepPhoto):
                return result
            photo, path = result.offered, result.path
            return _or_rejected(photo, lambda: stage_photo(photo, path, options, memory, levels[_set_of(result)]))

        if levels:
            deep = [isinstance(result, DeepPhoto) for result in found]
            found = [
                count(result) if new else result for new, result in zip(deep, pool.map(second, found), strict=True)
            ]
    finally:
        pool.shutdown(cancel_futures=True)
    staged = [photo for photo in found if isinstance(photo, StagedPhoto)]
    return staged, [photo for photo in found if isinstance(photo, RejectedPhoto)]


def _or_rejected(photo: Offered, stage: Callable[[], StagedPhoto | DeepPhoto]) -> Outcome:
    name = storable(photo.name)
    try:
        safe_name(name, WANTED_NAME_BYTES)
        return stage()
    except (ImageError, UnsafeNameError) as reason:
        return RejectedPhoto(name=printable(name), reason=str(reason).removesuffix("."))


def _levels_of_sets(photos: list[DeepPhoto]) -> dict[tuple[str | None, str], Levels]:
    """The levels that become black and white in the photos of each camera."""
    sets = {_set_of(photo) for photo in photos}
    return {each: common_levels(photo.sample for photo in photos if _set_of(photo) == each) for each in sets}


def _set_of(photo: DeepPhoto) -> tuple[str | None, str]:
    """What photos must have in common for one range: the camera, and whether it is colour, whole numbers or floats."""
    return photo.camera, photo.sample.mode if photo.sample.mode in (COLOUR, "F") else "I"


def _in_capture_order(staged: list[StagedPhoto]) -> list[StagedPhoto]:
    if all(photo.exif.taken_at for photo in staged):
        return sorted(staged, key=lambda photo: photo.exif.taken_at or "")  # stable: equal times stay in name order
    return staged


def _place(staged: list[StagedPhoto], images: Path) -> Iterable[Photo]:
    """Move the stored photos to their names below `images/`."""
    taken = TakenNames()  # a.heic and a.png may both become a.jpg
    for photo in staged:
        name = taken.take(PurePosixPath(safe_name(storable(photo.offered.name))).with_suffix(photo.suffix).as_posix())
        target = below(images, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        photo.path.replace(target)
        yield Photo(
            name=name,
            width=photo.width,
            height=photo.height,
            sha256=photo.sha256,
            focal_px=photo.exif.focal_px,
            focal_doubted=photo.exif.focal_doubted,
            camera=photo.exif.camera,
            taken_at=photo.exif.taken_at,
            utc_offset_minutes=photo.exif.utc_offset_minutes,
            gps=photo.exif.gps,
            up_in_camera=photo.exif.up_in_camera,
            digital_zoom=photo.exif.digital_zoom,
        )


def _require_enough(source: Path, photos: CheckedPhotos) -> None:
    usable = len(photos.photos)
    if usable >= MIN_PHOTOS:
        return
    reasons = Counter(photo.reason.split(" (")[0].split(":")[0] for photo in photos.rejected)
    if usable == 0 and reasons and set(reasons) == {"blank"}:
        raise PhotosError(
            f"All {photos.found} photos in {source.name} are blank (one even brightness, such as all black): "
            f"give at least {MIN_PHOTOS} photos that show the place."
        )
    why = "; ".join(f"{photo.name}: {photo.reason}" for photo in photos.rejected[:NAMED_REJECTIONS])
    more = f"; and {len(photos.rejected) - NAMED_REJECTIONS} more" if len(photos.rejected) > NAMED_REJECTIONS else ""
    rejected = f" Rejected: {why}{more}." if why else ""
    raise PhotosError(
        f"Only {usable} of {photos.found} photos in {source.name} can be used, at least {MIN_PHOTOS} are needed "
        f"(20 or more make a good scene): add photos that overlap.{rejected}"
    )
