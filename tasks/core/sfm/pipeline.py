"""What the worker process does for photos: features, pairs, mapping, frame, scene; more effort if few register."""

import logging

import pycolmap

from tasks.core.errors import RegistrationError
from tasks.core.measurements import SfmSection
from tasks.core.photoset import PhotoSet
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.frame import place_in_frame
from tasks.core.sfm.job import PLAN_FILE, Job
from tasks.core.sfm.mapping import Mapped, map_photos
from tasks.core.sfm.pairs import choose_pairs, wider_pairs
from tasks.core.sfm.resampling import write_plan
from tasks.core.sfm.scene_writer import undistort_model, write_scene

logger = logging.getLogger(__name__)

MORE_PAIRS_BELOW = 0.9  # registered share
MIN_REGISTERED = 3
NAMED_PHOTOS = 8


def reconstruct_in_worker(job: Job) -> SfmSection:
    """Run the whole stage. Raises RegistrationError when too few photos can be placed."""
    photos = PhotoSet.load(job.source)
    mapped, matcher = map_with_escalation(job, photos)
    model = _require_enough(job, photos, mapped)
    gps = {photo.name: photo.gps for photo in photos.photos if photo.gps is not None}
    georeference = place_in_frame(model, gps, job.options.random_seed)
    error_px = model.compute_mean_reprojection_error()
    write_plan(job.work / PLAN_FILE, undistort_model(model, job.image_size))
    scene = write_scene(model, job.out, [photo.name for photo in photos.photos], georeference)
    registered = {camera.name for camera in scene.cameras}
    return SfmSection(
        registered=len(registered),
        unregistered=tuple(photo.name for photo in photos.photos if photo.name not in registered),
        models=mapped.models,
        mean_reprojection_error_px=error_px,
        points=len(scene.points.xyz),
        georeferenced=georeference is not None,
        gps_residual_rms_m=None if georeference is None else georeference.residual_rms_m,
        georeference=georeference,
        matcher=matcher,
        mapper=mapped.mapper,
    )


def map_with_escalation(job: Job, photos: PhotoSet) -> tuple[Mapped, str]:
    """The best model found, with the user's image names, and the matcher that led to it."""
    choice = choose_pairs(photos.photos, job.options)
    database = FeatureDatabase(job.work / "first", job.source, photos.photos, job.options)
    database.add_cameras()
    database.extract()
    database.match(choice)
    best, matcher = map_photos(database, job.work / "models", job.options), choice.matcher

    wider = wider_pairs(photos.photos, choice, job.options)
    if wider is not None and best.registered < MORE_PAIRS_BELOW * len(photos.photos):
        logger.info("%d of %d registered: comparing more pairs", best.registered, len(photos.photos))
        database.match(wider)
        again = map_photos(database, job.work / "models-wider", job.options)
        choice = wider
        if again.registered > best.registered:
            best, matcher = again, wider.matcher

    if best.registered < _limit(job, photos):
        logger.info("%d of %d registered: looking for finer features", best.registered, len(photos.photos))
        database = FeatureDatabase(job.work / "finer", job.source, photos.photos, job.options)
        database.add_cameras()
        database.extract(doubled=True)
        database.match(choice)
        again = map_photos(database, job.work / "models-finer", job.options)
        if again.registered > best.registered:
            best, matcher = again, choice.matcher

    if best.model is not None:
        for image in best.model.images.values():
            image.name = database.user_name(image.name)
    return best, matcher


def _limit(job: Job, photos: PhotoSet) -> float:
    return max(job.options.min_registered_share * len(photos.photos), MIN_REGISTERED)


def _require_enough(job: Job, photos: PhotoSet, mapped: Mapped) -> pycolmap.Reconstruction:
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
