"""The compress stage: turn Gaussians into a SOG file, and measure the loss of quality."""

from tasks.core.measurements import SogSection
from tasks.core.refs import GaussiansRef, RunContext, SceneRef, SogRef
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import Scene
from tasks.core.sog.compress import compress
from tasks.core.sog.options import CompressOptions
from tasks.core.stage_code import StageCode
from tasks.reporting.progress import stage_progress
from tasks.running.gpu import computing_backend
from tasks.running.stage import Stage, open_output, run_stage
from tasks.train import TRAIN

COMPRESS = Stage(
    "compress",
    StageCode(
        ("tasks.core.sog.compress", "tasks.core.render.backends"),
        ("numba", "numpy", "PIL", "scipy", "torch", "gsplat"),
    ),
    SogSection,
)


@COMPRESS.task
def compress_gaussians(
    gaussians: GaussiansRef, scene: SceneRef, options: CompressOptions, context: RunContext
) -> SogRef:
    """Write `scene.sog` and render the held-out views from it."""
    held_out = TRAIN.measured(gaussians, context).eval_views
    output = run_stage(
        COMPRESS,
        context,
        inputs=[gaussians.digest, scene.digest, *held_out],
        options=options.model_dump(mode="json"),
        backend=computing_backend(COMPRESS.name, "auto", context),  # for rendering the held-out views
        compute=lambda folder: compress(
            open_output(gaussians, context) / "scene.ply",
            Scene.load(open_output(scene, context)),
            held_out,
            folder,
            options,
            rasterizer_for("auto"),
            stage_progress(COMPRESS.name),
        ),
    )
    return SogRef.of(output, bytes=COMPRESS.measured(output, context).bytes)
