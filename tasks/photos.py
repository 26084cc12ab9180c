"""The photos stage: turn a folder or archive of files into a validated photo set in the workspace."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tasks.core.measurements import PhotosSection
from tasks.core.photos.files import file_names, folder_content, is_raw_name
from tasks.core.photos.flight_log import log_among, log_on_machine, require_log_file
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.photos.other_files import count_kinds, other_files_notes
from tasks.core.progress import ProgressCallback
from tasks.core.refs import PhotosRef, RunContext
from tasks.core.safe_names import below, printable
from tasks.core.stage_code import StageCode
from tasks.places.sources import RemotePhotos, capture_name, digest_of, is_remote_source, open_source
from tasks.reporting.progress import run_logger, stage_progress
from tasks.running.stage import Stage, run_stage

PHOTOS = Stage(
    "photos",
    StageCode(("tasks.core.photos.ingest", "tasks.core.measurements"), ("PIL", "pillow_heif", "numpy")),
    PhotosSection,
)


@PHOTOS.task
def ingest_photos(source: str, options: PhotosOptions, context: RunContext) -> PhotosRef:
    """Validate the photos of a folder or .zip, local or on S3, and store them with their EXIF data.

    Raises PhotosError.
    """
    log = log_on_machine(options.flight_log, relative=not is_remote_source(source))
    among = "" if log else options.flight_log
    found = options.model_copy(update={"flight_log": str(log)}) if log else options
    offered = open_source(source, context.workspace, among)
    capture = capture_name(source)
    output = run_stage(
        PHOTOS,
        context,
        inputs=[
            *(_remote_inputs(offered) if isinstance(offered, RemotePhotos) else _local_inputs(offered, among)),
            *([digest_of(log, [log])] if log else []),
        ],
        options=options.model_dump(mode="json"),
        compute=lambda folder: _ingest(offered, capture, folder, found),
    )
    measured = PHOTOS.measured(output, context)
    for note in measured.notes:
        run_logger().info("photos: %s", note)
    return PhotosRef.of(output, capture=capture, usable=measured.usable, rejected=len(measured.rejected))


def _ingest(offered: Path | RemotePhotos, capture: str, folder: Path, options: PhotosOptions) -> PhotosSection:
    report = stage_progress(PHOTOS.name)
    if isinstance(offered, RemotePhotos):
        # Inside the output's folder, so that the remains of an interrupted run are removed with it.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            section = _ingest_local(offered.download(below(Path(temporary), capture), report), folder, options, report)
        refused = offered.rejected
        if not offered.others:
            not_read, notes = section.not_read, section.notes
        else:  # only photos were downloaded
            not_read = count_kinds(offered.others)
            notes = (*other_files_notes(not_read), *section.notes)
        return section.model_copy(
            update={
                "found": section.found + len(refused),
                "rejected": (*section.rejected, *refused),
                "not_read": not_read,
                "notes": notes,
            }
        )
    return _ingest_local(offered, folder, options, report)


def _ingest_local(source: Path, folder: Path, options: PhotosOptions, report: ProgressCallback) -> PhotosSection:
    photos = ingest(source, folder, options, report)
    return PhotosSection(
        found=photos.found,
        usable=len(photos.photos),
        rejected=photos.rejected,
        flight_log=photos.flight_log,
        not_read=photos.not_read,
        notes=(*other_files_notes(photos.not_read), *photos.notes),
    )


def _remote_inputs(offered: RemotePhotos) -> list[str]:
    return [offered.digest, *_others_input(offered.others)]


def _local_inputs(source: Path, flight_log: str) -> list[str]:
    """Inputs that name the output of local photos: the bytes of every file read, and the names of photos not read.

    Raw files and pipes are not read, only reported. Of other files in the folder, such as videos, only their number
    counts, which the report has. `flight_log` is photos.flight_log, if it names a file in the photos' folder.
    """
    if source.is_file():
        return [digest_of(source, [source])]
    content = folder_content(source)
    read = [photo.path for photo in content.photos if not is_raw_name(photo.name) and photo.path.is_file()]
    log = log_among(flight_log, file_names(source))
    if log:
        require_log_file(source / log)
    digest = digest_of(source, [*read, source / log] if log else read)
    known = set(read)
    names = [printable(photo.name) for photo in content.photos if photo.path not in known]
    return [digest, *names, *_others_input(name for name in content.others if name != log)]


def _others_input(names: Iterable[str]) -> list[str]:
    kinds = count_kinds(names)
    return [f"not read: {kinds}"] if kinds else []
