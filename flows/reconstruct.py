"""The product: photos in, a splat that opens in any browser out. One line per stage."""

import time

from prefect import flow

from tasks.cells import train_splat
from tasks.compress import compress_gaussians
from tasks.core.options import ReconstructOptions
from tasks.core.refs import Outputs, Publication
from tasks.photos import ingest_photos
from tasks.places.sources import capture_name
from tasks.publish import publish_splat
from tasks.reporting.run_page import run_page, show_end
from tasks.running.estimate import estimate_run, expecting
from tasks.running.gpu import computing_backend
from tasks.running.preflight import check_before_spending
from tasks.running.run_folder import context_of_run, default_destination, name_of_run
from tasks.running.settings import read_settings_of_run
from tasks.sfm import find_cameras, import_cameras, is_given_model


@flow(name="reconstruct", flow_run_name=name_of_run, on_cancellation=[show_end], on_crashed=[show_end])
def reconstruct(
    photos: str,
    destination: str = "",
    options: ReconstructOptions = ReconstructOptions(),  # noqa: B008 - frozen, and the *Run* form shows its defaults
    fresh: bool = False,
) -> Publication:
    """Turn photos into a 3D Gaussian splat with a viewer page and a report.

    Args:
        photos: A folder or .zip of photos, local or on S3 (s3://bucket/folder), or a local folder with a model of
            COLMAP, nerfstudio or Polycam.
        destination: The folder, local or s3://bucket/folder, that receives scene.sog, scene.ply, index.html,
            report.html, report.json and colmap/. Left empty, it is the run's own folder in the workspace.
        options: Preset and the options of every stage.
        fresh: Compute every stage anew, even when its output is in the workspace.
    """
    read_settings_of_run()
    started_at = time.time()
    capture = capture_name(photos)
    context = context_of_run(capture, fresh)
    target = destination or default_destination(context)

    with run_page(capture, options, context) as page:
        check_before_spending(photos, target, options, context)
        backend = computing_backend("train", options.train.backend, context)
        image_size = options.train_on(backend, photos=0).max_image_size
        if is_given_model(photos):
            photo_set = None
            scene = import_cameras(photos, image_size, context)
            estimate = estimate_run(photos, photo_set, options, context)
            context = expecting(context, estimate)
        else:
            photo_set = ingest_photos(photos, options.photos, context)
            estimate = estimate_run(photos, photo_set, options, context)
            context = expecting(context, estimate)
            scene = find_cameras(photo_set, options.sfm, image_size, context)
        decided = options.with_train(options.train_on(backend, scene.cameras))
        gaussians = train_splat(scene, decided.train, context)
        sog = compress_gaussians(gaussians, scene, options.compress, context)
        publication = publish_splat(photo_set, scene, gaussians, sog, decided, target, started_at, context, estimate)
        outputs = Outputs(photos=photo_set, scene=scene, gaussians=gaussians, sog=sog)
        page.show_result(outputs, publication, estimate)
    return publication
