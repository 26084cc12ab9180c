"""The compress stage: Gaussians become a SOG file, and what that costs in quality is measured."""

from tasks.core.measurements import SogSection, TrainSection
from tasks.core.refs import GaussiansRef, RunContext, SceneRef, SogRef
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import Scene
from tasks.core.sog.compress import compress
from tasks.core.sog.options import CompressOptions
from tasks.core.stage_code import StageCode
from tasks.reporting.progress import announce, stage_progress
from tasks.running.backend import computing_backend
from tasks.running.retries import stage_task
from tasks.running.stage import open_output, read_measurements, run_stage

STAGE = "compress"
CODE = StageCode(
    ("tasks.core.sog.compress", "tasks.core.render.backends"), ("numba", "numpy", "PIL", "scipy", "torch", "gsplat")
)


@stage_task(STAGE)
def compress_gaussians(
    gaussians: GaussiansRef, scene: SceneRef, options: CompressOptions, context: RunContext
) -> SogRef:
    """Write `scene.sog` and render the held-out views from it."""
    held_out = read_measurements(gaussians.uri, TrainSection, context).eval_views
    output = run_stage(
        STAGE,
        CODE,
        context,
        inputs=[gaussians.digest, scene.digest, *held_out],
        options=options.model_dump(mode="json"),
        backend=computing_backend(STAGE, "auto", context),  # draws the held-out views, which say how finely to store
        compute=lambda folder: compress(
            open_output(gaussians.uri, context) / "scene.ply",
            Scene.load(open_output(scene.uri, context)),
            held_out,
            folder,
            options,
            rasterizer_for("auto"),
            stage_progress(STAGE),
        ),
    )
    measured = read_measurements(output.uri, SogSection, context)
    if output.cached:
        announce(STAGE, f"{measured.bytes / 1e6:.1f} MB, from the workspace")
    return SogRef.model_validate({**output.as_ref_fields(), "bytes": measured.bytes})
