"""The sfm stage: photos become cameras, sparse points and undistorted images."""

from collections.abc import Callable
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import JsonValue

from tasks.core.measurements import SfmSection
from tasks.core.refs import PhotosRef, SceneRef
from tasks.core.scene import Scene
from tasks.core.sfm.import_model import import_model
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.reconstruct import reconstruct
from tasks.photos import capture_name, source_digest
from tasks.reporting import announce, stage_progress
from tasks.stage import can_retry, open_output, run_stage

STAGE = "sfm"
VERSION = "1"


@task(name=STAGE, retries=1, retry_condition_fn=can_retry, cache_policy=NO_CACHE)
def find_cameras(
    photos: PhotosRef, options: SfmOptions, image_size: int, workspace: str, fresh: bool = False
) -> SceneRef:
    """Reconstruct a Scene whose images have a long side of at most `image_size` px. Raises RegistrationError."""
    return _scene_stage(
        photos.capture,
        inputs=[photos.digest],
        options={**options.model_dump(mode="json"), "image_size": image_size},
        compute=lambda out: reconstruct(open_output(photos.uri), out, options, image_size, stage_progress(STAGE)),
        workspace=workspace,
        fresh=fresh,
    )


@task(name="sfm-import", retries=1, retry_condition_fn=can_retry, cache_policy=NO_CACHE)
def import_cameras(source: str, image_size: int, workspace: str, fresh: bool = False) -> SceneRef:
    """Take a user's own COLMAP model (sparse/0 and images) as the Scene. Raises FormatError."""
    path = Path(source).expanduser().resolve()
    return _scene_stage(
        capture_name(path),
        inputs=[source_digest(path)],
        options={"given": True, "image_size": image_size},
        compute=lambda out: import_model(path, out, image_size, stage_progress(STAGE)),
        workspace=workspace,
        fresh=fresh,
    )


def _scene_stage(
    capture: str,
    *,
    inputs: list[str],
    options: dict[str, JsonValue],
    compute: Callable[[Path], SfmSection],
    workspace: str,
    fresh: bool,
) -> SceneRef:
    output = run_stage(
        STAGE, VERSION, workspace=workspace, inputs=inputs, options=options, compute=compute, fresh=fresh
    )
    scene = Scene.load(output.folder)
    if output.cached:
        announce(STAGE, f"{len(scene.cameras)} cameras, from the workspace")
    return SceneRef.model_validate(
        {
            **output.as_ref_fields(),
            "capture": capture,
            "cameras": len(scene.cameras),
            "points": len(scene.points.xyz),
        }
    )
