"""The worker that finds cameras: features, pairs, mapping, frame; more effort if few register."""

import logging
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pycolmap

from tasks.core.errors import RegistrationError
from tasks.core.measurements import LeftOutPhoto, SfmSection, SfmTry
from tasks.core.photoset import Photo, PhotoSet
from tasks.core.scene import save_masks
from tasks.core.sfm import doubts
from tasks.core.sfm.evidence import is_flat
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.frame import enu_position, place_in_frame
from tasks.core.sfm.lenses import COMPARED_PAIRS, FailedCamera, failed_cameras
from tasks.core.sfm.mapping import Mapped, map_photos, reasons
from tasks.core.sfm.overlay import Mask
from tasks.core.sfm.pairs import FEW_PHOTOS, Pair, PairChoice, choose_pairs, wider_pairs
from tasks.core.sfm.worker import CAMERAS_MODEL, DATABASE_FILE, KEPT_DATABASE_FILE, OVERLAY_FILE, CamerasJob, work

logger = logging.getLogger(__name__)

MORE_PAIRS_BELOW = 0.9  # registered share
MIN_REGISTERED = 3
NAMED_PHOTOS = 8
NO_DEPTH = (
    "The camera {how}: all of the {count} photos that show the same thing show it from one place, so they have no "
    "depth. Move sideways between photos, by a tenth of the distance to what they show or more, so that each place is "
    "seen from 3 or more positions."
)
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
    save_masks(job.out / OVERLAY_FILE, {photo.name: mask for photo, mask in ladder.overlays.items()})
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
        degradations=(
            *doubts.of_exif(photos),
            *doubts.of_overlays(ladder.overlays),
            *doubts.of_failed_cameras(ladder.failed, ladder.reasons),
            *doubts.of_parts(ladder.best.problems),
            *doubts.of_model(ladder.best.doubt),
            *doubts.of_flatness(is_flat(model), any(c.has_prior_focal_length for c in model.cameras.values())),
            *placement.degradations,
        ),
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


@dataclass(frozen=True)
class Ladder:
    """All efforts in order, and the best model that they produced, with the user's image names."""

    best: Mapped
    tries: tuple[SfmTry, ...]
    chosen: SfmTry  # the effort that produced the best model: the first one that placed as many photos
    reasons: dict[str, str]  # by name of each photo that the best model lacks
    failed: tuple[FailedCamera, ...] = ()  # cameras that are left out as a whole
    overlays: dict[Photo, Mask] = field(default_factory=dict)  # what never changes in photos of one camera


@dataclass
class Climb:
    """The efforts so far."""

    job: CamerasJob
    photos: tuple[Photo, ...]
    found: list[Mapped] = field(default_factory=list)
    databases: list[FeatureDatabase] = field(default_factory=list)
    tries: list[SfmTry] = field(default_factory=list)
    best_number: int = 0
    compared: tuple[Pair, ...] = ()  # by the last effort

    def attempt(self, rung: str, database: FeatureDatabase, choice: PairChoice) -> None:
        """Match pairs and map. Raises RegistrationError where the photos have no depth, whatever is tried."""
        # a rerun must continue from exactly what this effort had found, so that it ends with the same cameras
        self.compared = database.match(choice, self.job.work / DATABASE_FILE if not self.tries else None)
        if how := database.no_depth():
            raise RegistrationError(NO_DEPTH.format(how=how, count=len(self.photos)))
        mapped = map_photos(database, self.job.work / f"models-{len(self.tries)}", self.job.options)
        counts = {"registered": mapped.registered, "models": mapped.models, "pairs": len(self.compared)}
        self.tries.append(SfmTry(rung=rung, matcher=choice.matcher, mapper=mapped.mapper, note=mapped.note, **counts))
        self.found.append(mapped)
        self.databases.append(database)
        if len(self.found) == 1 or mapped.is_better_than(self.best):
            self.best_number = len(self.found) - 1

    @property
    def best(self) -> Mapped:
        """The best model."""
        return self.found[self.best_number]

    def placed(self) -> set[str]:
        """Names of the photos in the best model."""
        best = self.best
        if best.model is None:
            return set()
        database = self.databases[self.best_number]
        return {database.user_name(best.model.image(i).name) for i in best.model.reg_image_ids()}

    def failed(self) -> tuple[FailedCamera, ...]:
        """Cameras none of whose photos is in the best model, which the others' photos make."""
        if self.best.registered == len(self.photos):
            return ()
        return failed_cameras(self.photos, self.placed(), self.job.options.min_registered_share)

    def worth_trying(self) -> int:
        """How many photos more pairs may place: without cameras that have nothing in common with the scene."""
        hopeless, placed = 0, self.placed()
        for camera in self.failed():
            names = {photo.name for photo in camera.photos}
            sides = ((self.photos[a].name, self.photos[b].name) for a, b in self.compared)
            across = sum((a in names and b in placed) or (b in names and a in placed) for a, b in sides)
            if across >= COMPARED_PAIRS * len(names) and not self.databases[-1].has_pair_between(names, placed):
                hopeless += len(names)
        return len(self.photos) - hopeless

    @property
    def limit(self) -> float:
        """How many photos must be placed: a share of those whose cameras can be placed at all."""
        lost = sum(len(camera.photos) for camera in self.failed())
        return max(self.job.options.min_registered_share * (len(self.photos) - lost), MIN_REGISTERED)


def map_with_escalation(job: CamerasJob, photos: PhotoSet) -> Ladder:
    """Place the photos with as little effort as is enough.

    Chosen pairs, then without what does not move in them, more neighbours, all pairs, raised contrast, finer features.
    """
    climb = Climb(job, photos.photos)
    choice = choose_pairs(photos.photos, job.options)
    database = FeatureDatabase(job.work / "first", job.source, photos.photos, job.options)
    if not database.restore(job.work / KEPT_DATABASE_FILE):
        database.add_cameras()
    database.extract(kept=job.work / DATABASE_FILE)
    climb.attempt("first try", database, choice)
    if not climb.best.is_good(len(photos.photos)) and database.is_fooled():
        logger.info("many pairs agree by points that do not move: matching without them")
        database.leave_out_still_points()
        climb.attempt("moving points", database, choice)

    if (apart := database.with_zoomed_apart(job.work / "zoom")) is not None:
        logger.info("some photos show everything larger: trying them with a camera of their own")
        climb.attempt("zoomed photos apart", apart, choice)
        if climb.best is climb.found[-1]:
            database = apart

    for wider in wider_pairs(photos.photos, choice, job.options):
        if _enough_pairs(climb.best.registered, climb.worth_trying()):
            break
        logger.info("%d of %d registered: comparing more pairs", climb.found[-1].registered, len(photos.photos))
        choice = wider
        climb.attempt(_rung(wider), database, choice)

    still_points_count, equalised = database.still_points_count, False
    for rung in ("raised contrast", "finer features"):
        if climb.best.registered >= climb.limit or (rung == "raised contrast" and not database.has_low_contrast()):
            continue
        logger.info("too few of %d registered: %s", len(photos.photos), rung)
        doubled = rung == "finer features"
        equalised = not doubled or (equalised and climb.best is climb.found[-1])  # where it has helped
        database = FeatureDatabase(
            job.work / ("finer" if doubled else "contrast"), job.source, photos.photos, job.options
        )
        database.still_points_count = still_points_count
        database.add_cameras()
        database.extract(doubled=doubled, equalised=equalised)
        climb.attempt(rung, database, choice)

    best = climb.best
    database = climb.databases[climb.best_number]
    why, failed = reasons(database, best), climb.failed()
    overlays = {photo: mask for photo in photos.photos if (mask := database.overlay_of(photo)) is not None}
    if best.model is not None:
        for image in best.model.images.values():
            image.name = database.user_name(image.name)
    return Ladder(best, tuple(climb.tries), climb.tries[climb.best_number], why, failed, overlays)


def _rung(wider: PairChoice) -> str:
    if wider.matcher == "exhaustive":
        return "all pairs"
    return "similar photos" if wider.matcher.endswith("+appearance") else "more neighbours"


def _enough_pairs(registered: int, photos: int) -> bool:
    """Return whether more pairs are not worth a try. Of few photos all are wanted, and comparing them costs little."""
    return registered >= (photos if photos <= FEW_PHOTOS else MORE_PAIRS_BELOW * photos)


def _require_enough(job: CamerasJob, photos: PhotoSet, ladder: Ladder) -> pycolmap.Reconstruction:
    mapped = ladder.best
    lost_cameras = sum(len(camera.photos) for camera in ladder.failed)
    total, registered = len(photos.photos), mapped.registered
    least = max(job.options.min_registered_share * (total - lost_cameras), MIN_REGISTERED)
    if mapped.model is not None and registered >= least:
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
    more = " ".join(("", *doubts.of_crops(photos)))
    raise RegistrationError(
        f"{registered} of {total} photos could be placed in one scene ({registered / total:.0%}); need {limit}.{parts} "
        f"Not placed: {names}. Each place should be seen in 3 or more sharp photos from different positions: add "
        f"photos between these and the others, leave out what shows something else, or lower sfm.min_registered_share."
        f"{more}"
    )


if __name__ == "__main__":
    work(CamerasJob, find_in_worker)
