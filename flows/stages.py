"""One small deployable flow per stage, so that a stage can run in a work pool of its own.

Each takes exactly what its task takes: `tasks/running/dispatch.py` passes the task's parameters on by name.
Settings are those of the machine where the stage runs.
"""

from prefect import flow

from tasks.compress import compress_gaussians
from tasks.core.measurements import EstimateSection
from tasks.core.options import ReconstructOptions
from tasks.core.photos.options import PhotosOptions
from tasks.core.refs import GaussiansRef, PhotosRef, Publication, RunContext, SceneRef, SogRef
from tasks.core.sfm.options import SfmOptions
from tasks.core.sog.options import CompressOptions
from tasks.core.training.options import TrainOptions
from tasks.photos import ingest_photos
from tasks.publish import publish_splat
from tasks.running.settings import read_settings_of_run
from tasks.sfm import find_cameras
from tasks.train import train_gaussians


@flow(name="photos")
def photos_flow(source: str, options: PhotosOptions, context: RunContext) -> PhotosRef:
    """Check the photos of a folder or .zip and store them in the workspace."""
    read_settings_of_run()
    return ingest_photos(source, options, context)


@flow(name="sfm")
def sfm_flow(photos: PhotosRef, options: SfmOptions, image_size: int, context: RunContext) -> SceneRef:
    """Find the cameras of a stored photo set."""
    read_settings_of_run()
    return find_cameras(photos, options, image_size, context)


@flow(name="train")
def train_flow(scene: SceneRef, options: TrainOptions, context: RunContext) -> GaussiansRef:
    """Train Gaussians on a stored scene."""
    read_settings_of_run()
    return train_gaussians(scene, options, context)


@flow(name="compress")
def compress_flow(gaussians: GaussiansRef, scene: SceneRef, options: CompressOptions, context: RunContext) -> SogRef:
    """Compress stored Gaussians to SOG."""
    read_settings_of_run()
    return compress_gaussians(gaussians, scene, options, context)


@flow(name="publish")
def publish_flow(
    photos: PhotosRef | None,
    scene: SceneRef,
    gaussians: GaussiansRef,
    sog: SogRef,
    options: ReconstructOptions,
    destination: str,
    started_at: float,
    context: RunContext,
    estimate: EstimateSection | None = None,
) -> Publication:
    """Put a stored result where people look at it."""
    read_settings_of_run()
    return publish_splat(photos, scene, gaussians, sog, options, destination, started_at, context, estimate)
