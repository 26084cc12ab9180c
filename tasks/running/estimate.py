"""Estimate a run: for `spaceport estimate`, before a run, and next to the measured values in summary and report."""

from functools import partial
from io import BytesIO
from typing import IO

from tasks.core.errors import InputError
from tasks.core.estimate.machine import Machine, this_machine
from tasks.core.estimate.run import estimate_stages, in_words, section_of
from tasks.core.estimate.stages import Capture
from tasks.core.measurements import EstimateSection
from tasks.core.options import ReconstructOptions
from tasks.core.paths import local_path
from tasks.core.photos.headers import HEADER_BYTES, HeaderSource, headers_of, read_headers
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import PHOTOS_FILE, PhotoSet
from tasks.core.refs import PhotosRef, RunContext
from tasks.core.stages import STAGES
from tasks.places.sources import find_photos, is_archive, is_remote_source, local_source
from tasks.places.workspace import open_workspace
from tasks.reporting.progress import run_logger
from tasks.running.settings import settings_in_use
from tasks.sfm import is_given_model


def capture_at(source: str, workspace: str, options: PhotosOptions | None = None) -> Capture:
    """Read the photos' headers in a folder or .zip, a folder on S3, or a folder with a user's own model.

    `options` limits the size of an archive, whose directory is checked before anything in it is read.

    Raises PhotosError for a place without photos, InputError for an archive on S3.
    """
    if is_given_model(source):
        return Capture.of_given_model(local_path(source).resolve())
    if not is_remote_source(source):
        return Capture.of_headers(read_headers(local_source(source), options))
    if is_archive(source):
        raise InputError(f"The photos in {source} are not known before it is downloaded: name a copy on this machine.")
    found = find_photos(source, open_workspace(workspace))

    def beginning(name: str) -> IO[bytes]:
        return BytesIO(found.place.read_beginning(name, HEADER_BYTES))

    names = [each.name for each in found.objects if each.size > 0]
    return Capture.of_headers(headers_of(HeaderSource(name, partial(beginning, name)) for name in names))


def machines_of_run() -> dict[str, Machine]:
    """Return the machine of each stage: this one, or the one in SPACEPORT_MACHINES for a stage that runs elsewhere.

    If SPACEPORT_MACHINES does not name the stage, its machine is assumed to be like this one. Raises OptionsError.
    """
    settings = settings_in_use()
    here = this_machine().model_copy(update={"hourly_usd": settings.hourly_cost_usd})
    return {stage: settings.machines.get(stage, here) if stage in settings.dispatch else here for stage in STAGES}


def estimate_run(
    source: str, photos: PhotosRef | None, options: ReconstructOptions, context: RunContext
) -> EstimateSection | None:
    """Estimate the run from the output of the photos stage, and write the estimate to the run's log.

    `photos` is None for a folder with a COLMAP model. If there can be no estimate, returns None and logs a warning: the
    run continues without it.
    """
    try:
        section = _estimate(source, photos, options, context)
    except Exception as error:  # noqa: BLE001 - a failed estimate must not end the run
        run_logger().warning("no estimate of this run (%s: %s)", type(error).__name__, error)
        return None
    run_logger().info("expected: %s", in_words(section))
    return section


def expecting(context: RunContext, estimate: EstimateSection | None) -> RunContext:
    """Return the context with the expected seconds of each stage."""
    if estimate is None:
        return context
    seconds = {stage: taken for stage in STAGES if (taken := getattr(estimate.seconds, stage)) is not None}
    return context.model_copy(update={"expected_seconds": seconds})


def _estimate(
    source: str, photos: PhotosRef | None, options: ReconstructOptions, context: RunContext
) -> EstimateSection:
    if photos is None:
        capture = Capture.of_given_model(local_path(source).resolve())
    else:
        stored = open_workspace(context.workspace).read(photos.uri, PHOTOS_FILE)
        capture = Capture(PhotoSet.model_validate_json(stored).photos)
    return section_of(estimate_stages(capture, options, machines_of_run()))
