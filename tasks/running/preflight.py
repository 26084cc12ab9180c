"""Checks before a run spends anything: a run that cannot succeed fails here, with one sentence, before any stage.

The terminal performs them before it starts a run, and every flow run performs them first, however it was started.
"""

from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from tasks.core.errors import DestinationError, MissingPartError, PhotosError
from tasks.core.options import ReconstructOptions
from tasks.core.paths import local_path
from tasks.core.photos.archive import check_archive, open_archive
from tasks.core.refs import RunContext
from tasks.core.safe_names import printable
from tasks.core.sfm.given_model import read_given
from tasks.core.sfm.given_places import folders_read, model_among, unused_model
from tasks.core.stages import PARTS
from tasks.core.storage import S3Workspace, Workspace
from tasks.places.destination import open_destination
from tasks.places.result_files import RESULT_FOLDERS
from tasks.places.sources import is_remote_source, open_source
from tasks.places.workspace import open_workspace
from tasks.reporting.progress import run_logger
from tasks.running.dispatch import DEPLOY, no_deployment
from tasks.running.retries import stage_task
from tasks.running.settings import settings_in_use
from tasks.sfm import is_given_model

CHECK = "check"


@stage_task(CHECK)
def check_before_spending(photos: str, destination: str, options: ReconstructOptions, context: RunContext) -> None:
    """Run `check_run` as a task, so that it appears in the run's graph and is retried if a store is away."""
    check_run(photos, destination, options, context.workspace)
    if note := note_on(photos):
        run_logger().info(note)


def note_on(photos: str) -> str | None:
    """Return a sentence on cameras beside the photos that the run does not use; None if there are none."""
    return None if is_remote_source(photos) else unused_model(local_path(photos))


def check_run(photos: str, destination: str, options: ReconstructOptions, workspace: str) -> None:
    """Check everything that can be known before the first stage. Nothing is decoded, hashed or downloaded.

    Args:
        photos: source of the photos, as the run was given it.
        destination: place of its result.
        options: of the run.
        workspace: the name of the workspace.

    Raises:
        DestinationError: the workspace or the destination cannot be written, one of them overlaps with the photos, or
            the result would replace files that are not ours.
        PhotosError: the photos do not exist, cannot be read, or are not photos.
        FormatError: the given model is incomplete, or does not fit its images.
        OptionsError: SPACEPORT_MACHINES is invalid.
        MissingPartError: training needs a GPU that is not usable here, or a stage has no deployment or pool.
    """
    dispatched = settings_in_use().dispatch
    _check_apart(photos, destination, workspace)
    _check_photos(photos, options, workspace)
    store = open_workspace(workspace)
    _check_workspace(store, workspace)
    target = open_destination(destination, store)
    target.check()
    target.require_ours()
    if options.train.backend == "cuda" and "train" not in dispatched:
        from tasks.core.render.backends import resolve_backend  # may load torch, which takes seconds

        resolve_backend(options.train.backend)
    if dispatched:
        with get_client(sync_client=True) as client:
            for stage in sorted(dispatched):
                _check_pool(client, stage)
            for part, stage in PARTS.items():
                if stage in dispatched and options.train.cells != 1:
                    _check_pool(client, part)


def _check_workspace(store: Workspace, name: str) -> None:
    if isinstance(store, S3Workspace):
        store.root.require_writable()
        return
    try:
        open_destination(name, store).check()
    except DestinationError as error:
        reason = f" ({error.__cause__.strerror})" if isinstance(error.__cause__, OSError) else ""
        raise DestinationError(
            f"The workspace {name} cannot be written{reason}: name another one (--workspace or SPACEPORT_WORKSPACE)."
        ) from error


def _check_photos(photos: str, options: ReconstructOptions, workspace: str) -> None:
    if is_given_model(photos):
        read_given(local_path(photos))
        return
    source = open_source(photos, workspace)
    if isinstance(source, Path) and source.suffix.lower() == ".zip" and source.is_file():
        check_archive(source, options.photos)
        with open_archive(source) as archive:
            model = model_among(archive.namelist())
        if model is not None:
            raise PhotosError(
                f"{source.name} contains a model with cameras ({printable(model)}), which is only used from a folder: "
                "unpack the archive and name the folder, or leave the model out of the archive."
            )


def _check_apart(photos: str, destination: str, workspace: str) -> None:
    """Refuse places inside the photo folder, where the next run would take results for photos or replace photos."""
    read = [str(folder) for folder in folders_read(local_path(photos))] if is_given_model(photos) else [photos]
    for what, place in (("destination", destination), ("workspace", workspace)):
        if any(_is_inside(place, folder) for folder in read):
            raise DestinationError(
                f"The {what} {place} is inside the photo folder {photos}: name one outside it "
                f"({'--out' if what == 'destination' else '--workspace'} in a terminal)."
            )
    for name in RESULT_FOLDERS:
        if any(_is_inside(folder, f"{destination.rstrip('/')}/{name}") for folder in read):
            raise DestinationError(
                f"The photos {photos} are where the result's folder {name} would go: name another destination than "
                f"{destination} (--out in a terminal)."
            )


def _is_inside(place: str, folder: str) -> bool:
    """Whether a place is a folder, or below it."""
    if is_remote_source(place) or is_remote_source(folder):
        return f"{place.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")
    outer = local_path(folder).resolve()
    return outer.is_dir() and local_path(place).resolve().is_relative_to(outer)


def _check_pool(client: SyncPrefectClient, stage: str) -> None:
    """Require the stage's deployment and its pool, without which its run would wait forever."""
    try:
        deployment = client.read_deployment_by_name(f"{stage}/{stage}")
    except ObjectNotFound as error:
        raise no_deployment(stage) from error
    if deployment.work_pool_name is None:
        raise MissingPartError(
            f"The deployment {stage}/{stage} names no work pool that is on this Prefect server: {DEPLOY}."
        )
