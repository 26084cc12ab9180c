"""The worker that finds cameras: features, pairs, mapping, frame; more effort if few register."""

import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from tasks.core.errors import RegistrationError
from tasks.core.measurements import LeftOutPhoto, SfmSection, SfmTry
from tasks.core.photoset import FOCAL_LENGTHS_MM, PhotoSet
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.frame import enu_position, place_in_frame
from tasks.core.sfm.mapping import Mapped, map_photos, reasons
from tasks.core.sfm.pairs import FEW_PHOTOS, PairChoice, choose_pairs, wider_pairs
from tasks.core.sfm.worker import CAMERAS_MODEL, DATABASE_FILE, KEPT_DATABASE_FILE, CamerasJob, work

logger = logging.getLogger(__name__)

MORE_PAIRS_BELOW = 0.9  # registered share
MIN_REGISTERED = 3
NAMED_PHOTOS = 8
COUNT, FRAME_HEAD = struct.Struct("<Q"), struct.Struct("<II7dI")  # https://colmap.github.io/format.html
FRAME_DATA_BYTES = 16


def find_in_worker(job: CamerasJob) -> SfmSection:
    """Find the cameras and write them. Raises RegistrationError when too few photos can be placed."""
    photos = PhotoSet.load(job.source)
    ladder = map_with_escalation(job, photos)
    model = _require_enough(job, photos, ladder)
    placement = place_in_frame(model, photos.photos, job.options.random_seed)
    georeference = placement.georeference
    error_px = model.compute_mean_reprojection_error()
    write_model(model, job.out / CAMERAS_MODEL)
    if georeference is not None:
        georeference.save(job.out)
    registered = {model.image(i).name for i in model.reg_image_ids()}
    left_out = tuple(
        LeftOutPhoto(
            name=photo.name,
            reason=ladder.reasons[photo.name],
            position_m=None if photo.gps is None else enu_position(photo.gps, georeference),
        )
        for photo in photos.photos
        if photo.name not in registered
    )
    return SfmSection(
        registered=len(registered),
        unregistered=tuple(photo.name for photo in left_out),
        left_out=left_out,
        models=ladder.best.models,
        mean_reprojection_error_px=error_px,
        points=model.num_points3D(),
        georeferenced=georeference is not None,
        gps_residual_rms_m=None if georeference is None else georeference.residual_rms_m,
        georeference=georeference,
        frame=placement.frame,
        matcher=ladder.chosen.matcher,
        mapper=ladder.best.mapper,
        rung=ladder.chosen.rung,
        tries=ladder.tries,
        degradations=(*doubts(photos), *placement.degradations),
    )


def write_model(model: pycolmap.Reconstruction, folder: Path) -> None:
    """Write a model with its frames in the order in which the mapper placed them, so that reading restores that order.

    pycolmap writes frames by number and images in the order of their frames. A model that was read and written again
    would otherwise have other bytes.
    """
    folder.mkdir(parents=True)
    model.write_binary(folder)
    data = (folder / "frames.bin").read_bytes()
    position, entries = COUNT.size, dict[int, bytes]()
    while position < len(data):
        number, *_, sensors = FRAME_HEAD.unpack_from(data, position)
        end = position + FRAME_HEAD.size + sensors * FRAME_DATA_BYTES
        entries[number] = data[position:end]
        position = end
    placed = [entries.pop(number) for number in model.reg_frame_ids()]
    (folder / "frames.bin").write_bytes(b"".join([data[: COUNT.size], *placed, *entries.values()]))


def doubts(photos: PhotoSet) -> tuple[str, ...]:
    """Return sentences on EXIF values of the photos that are not believed."""
    doubted = sum(photo.focal_doubted for photo in photos.photos)
    shortest, longest = FOCAL_LENGTHS_MM
    said = (
        f"The focal length in EXIF of {doubted} of {len(photos.photos)} photos is not believed: no lens has less than "
        f"{shortest:.0f} or more than {longest:,.0f} mm (35 mm equivalent). It was found from the photos alone."
    )
    return (said,) if doubted else ()


@dataclass(frozen=True)
class Ladder:
    """All efforts in order, and the best model that they produced, with the user's image names."""

    best: Mapped
    tries: tuple[SfmTry, ...]
    reasons: dict[str, str]  # by name of each photo that the best model lacks

    @property
    def chosen(self) -> SfmTry:
        """The effort that produced the best model: the first one that placed as many photos."""
        return max(self.tries, key=lambda made: made.registered)


def map_with_escalation(job: CamerasJob, photos: PhotoSet) -> Ladder:
    """Place the photos with as little effort as is enough: chosen pairs, more neighbours, all pairs, finer features."""
    found: list[Mapped] = []
    databases: list[FeatureDatabase] = []
    tries: list[SfmTry] = []

    def attempt(rung: str, database: FeatureDatabase, choice: PairChoice) -> None:
        # a rerun must continue from exactly what this effort had found, so that it ends with the same cameras
        database.match(choice, job.work / DATABASE_FILE if not tries else None)
        mapped = map_photos(database, job.work / f"models-{len(tries)}", job.options)
        counts = {"registered": mapped.registered, "models": mapped.models, "pairs": len(choice.pairs)}
        tries.append(SfmTry(rung=rung, matcher=choice.matcher, mapper=mapped.mapper, note=mapped.note, **counts))
        found.append(mapped)
        databases.append(database)

    choice = choose_pairs(photos.photos, job.options)
    database = FeatureDatabase(job.work / "first", job.source, photos.photos, job.options)
    if not database.restore(job.work / KEPT_DATABASE_FILE):
        database.add_cameras()
        database.extract()
        database.snapshot(job.work / DATABASE_FILE)
    attempt("first try", database, choice)

    for wider in wider_pairs(photos.photos, choice, job.options):
        if _enough_pairs(max(mapped.registered for mapped in found), len(photos.photos)):
            break
        logger.info("%d of %d registered: comparing more pairs", found[-1].registered, len(photos.photos))
        choice = wider
        attempt("all pairs" if wider.matcher == "exhaustive" else "more neighbours", database, choice)

    if max(mapped.registered for mapped in found) < _limit(job, photos):
        logger.info("too few of %d registered: looking for finer features", len(photos.photos))
        database = FeatureDatabase(job.work / "finer", job.source, photos.photos, job.options)
        database.add_cameras()
        database.extract(doubled=True)
        attempt("finer features", database, choice)

    best = max(found, key=lambda mapped: mapped.registered)  # the first of equals
    why = reasons(databases[found.index(best)], best)
    if best.model is not None:
        for image in best.model.images.values():
            image.name = database.user_name(image.name)
    return Ladder(best, tuple(tries), why)


def _enough_pairs(registered: int, photos: int) -> bool:
    """Return whether more pairs are not worth a try. Of few photos all are wanted, and comparing them costs little."""
    return registered >= (photos if photos <= FEW_PHOTOS else MORE_PAIRS_BELOW * photos)


def _limit(job: CamerasJob, photos: PhotoSet) -> float:
    return max(job.options.min_registered_share * len(photos.photos), MIN_REGISTERED)


def _require_enough(job: CamerasJob, photos: PhotoSet, ladder: Ladder) -> pycolmap.Reconstruction:
    mapped = ladder.best
    total, registered = len(photos.photos), mapped.registered
    if mapped.model is not None and registered >= _limit(job, photos):
        return mapped.model
    placed = set()
    if mapped.model is not None:
        placed = {mapped.model.image(i).name for i in mapped.model.reg_image_ids()}
    lost = [photo.name for photo in photos.photos if photo.name not in placed]
    names = ", ".join(lost[:NAMED_PHOTOS]) + (
        f" and {len(lost) - NAMED_PHOTOS} more" if len(lost) > NAMED_PHOTOS else ""
    )
    limit = f"{job.options.min_registered_share:.0%}, and at least {MIN_REGISTERED}"
    parts = f" They fell into {mapped.models} separate parts." if mapped.models > 1 else ""
    raise RegistrationError(
        f"{registered} of {total} photos could be placed in one scene ({registered / total:.0%}); need {limit}.{parts} "
        f"Not placed: {names}. Each place should be seen in 3 or more sharp photos from different positions: add "
        "photos between these and the others, leave out what shows something else, or lower sfm.min_registered_share."
    )


if __name__ == "__main__":
    work(CamerasJob, find_in_worker)
