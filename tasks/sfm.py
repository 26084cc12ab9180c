"""The sfm stage: photos become cameras, sparse points and undistorted images."""

from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue

from tasks.core.measurements import SfmSection
from tasks.core.paths import local_path
from tasks.core.refs import PhotosRef, RunContext, SceneRef
from tasks.core.scene import Scene
from tasks.core.sfm.import_model import import_model, is_colmap_model, model_files
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.reconstruct import reconstruct
from tasks.core.stage_code import StageCode
from tasks.photos import capture_name, digest_of, is_remote_source
from tasks.places.workspace import open_workspace
from tasks.reporting.artifacts import Shown
from tasks.reporting.pictures import show_picture
from tasks.reporting.progress import announce, stage_progress
from tasks.reporting.recording import current_recording
from tasks.running.retries import stage_task
from tasks.running.stage import open_output, output_key, read_measurements, run_stage

STAGE = "sfm"
# The worker is a program of its own, which no import leads to.
CODE = StageCode(
    ("tasks.core.sfm.reconstruct", "tasks.core.sfm.worker", "tasks.core.sfm.import_model"),
    ("pycolmap", "PIL", "numpy"),
)
CAMERAS_PICTURE = "pictures/cameras.png"
NAMED_PHOTOS = 8  # left out, in the picture's description


@stage_task(STAGE)
def find_cameras(photos: PhotosRef, options: SfmOptions, image_size: int, context: RunContext) -> SceneRef:
    """Reconstruct a Scene whose images have a long side of at most `image_size` px. Raises RegistrationError."""
    inputs, naming_options = [photos.digest], {**options.model_dump(mode="json"), "image_size": image_size}
    store, key = open_workspace(context.workspace), output_key(CODE, inputs, naming_options)

    def compute(out: Path) -> SfmSection:
        place = store.checkpoints(key, context.run if context.fresh else None)
        kept = None if place.is_remote else place  # features are 1 MB a photo: found anew sooner than sent and fetched
        found = reconstruct(open_output(photos.uri, context), out, options, image_size, stage_progress(STAGE), kept)
        if kept is not None:
            store.remove_checkpoints(key)
        return found

    return _scene_stage(
        photos.capture, context, inputs=inputs, options=naming_options, compute=compute, rejected=photos.rejected
    )


@stage_task("sfm-import")
def import_cameras(source: str, image_size: int, context: RunContext) -> SceneRef:
    """Take a user's own COLMAP model (sparse/0 and images) as the Scene. Raises FormatError."""
    path = local_path(source).resolve()
    return _scene_stage(
        capture_name(path),
        context.model_copy(update={"dispatched": True}),  # the model lies on this machine: always here
        inputs=[digest_of(path, model_files(path))],
        options={"given": True, "image_size": image_size},
        compute=lambda out: import_model(path, out, image_size, stage_progress(STAGE)),
    )


def is_given_model(source: str) -> bool:
    """Whether the source is a local folder with a COLMAP model, so that it enters here and not as photos."""
    return not is_remote_source(source) and is_colmap_model(local_path(source))


def _scene_stage(
    capture: str,
    context: RunContext,
    *,
    inputs: list[str],
    options: dict[str, JsonValue],
    compute: Callable[[Path], SfmSection],
    rejected: int = 0,
) -> SceneRef:
    output = run_stage(STAGE, CODE, context, inputs=inputs, options=options, compute=compute)
    measured = read_measurements(output.uri, SfmSection, context)
    if (recording := current_recording()) is not None:
        recording.show("cameras", lambda: _camera_map(output.uri, measured, rejected, context))
    if output.cached:
        announce(STAGE, f"{measured.registered} cameras, from the workspace")
    return SceneRef.model_validate(
        {
            **output.as_ref_fields(),
            "capture": capture,
            "cameras": measured.registered,
            "points": measured.points,
        }
    )


def _camera_map(uri: str, measured: SfmSection, rejected: int, context: RunContext) -> Shown | None:
    """The scene from above as a picture, for people."""
    from tasks.core.report.charts import camera_map_picture  # matplotlib takes a second, here in a thread of its own

    picture = camera_map_picture(Scene.load(open_output(uri, context)), measured.left_out, rejected)
    described = "; ".join(f"{photo.name}: {photo.reason}" for photo in measured.left_out[:NAMED_PHOTOS])
    return show_picture(CAMERAS_PICTURE, picture, f"Cameras from above. {described}".strip(), context)
