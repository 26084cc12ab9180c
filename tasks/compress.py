"""The compress stage: Gaussians become a SOG file, and what that costs in quality is measured."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.core.measurements import SogSection, TrainSection
from tasks.core.refs import GaussiansRef, SceneRef, SogRef
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import Scene
from tasks.core.sog.compress import compress
from tasks.core.sog.options import CompressOptions
from tasks.reporting import announce, stage_progress
from tasks.stage import can_retry, open_output, read_measurements, run_stage

STAGE = "compress"
VERSION = "1"


@task(name=STAGE, retries=1, retry_condition_fn=can_retry, cache_policy=NO_CACHE)
def compress_gaussians(
    gaussians: GaussiansRef, scene: SceneRef, options: CompressOptions, workspace: str, fresh: bool = False
) -> SogRef:
    """Write `scene.sog` and render the held-out views from it."""
    output = run_stage(
        STAGE,
        VERSION,
        workspace=workspace,
        inputs=[gaussians.digest, scene.digest],
        options=options.model_dump(mode="json"),
        compute=lambda folder: compress(
            open_output(gaussians.uri) / "scene.ply",
            Scene.load(open_output(scene.uri)),
            read_measurements(gaussians.uri, TrainSection).eval_views,
            folder,
            options,
            rasterizer_for("auto"),
            stage_progress(STAGE),
        ),
        fresh=fresh,
    )
    measured = read_measurements(str(output.folder), SogSection)
    if output.cached:
        announce(STAGE, f"{measured.bytes / 1e6:.1f} MB, from the workspace")
    return SogRef.model_validate({**output.as_ref_fields(), "bytes": measured.bytes})
