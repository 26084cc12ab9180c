"""The sfm stage: turn photos into cameras, sparse points and undistorted images."""

from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue

from tasks.core.measurements import SfmSection
from tasks.core.paths import local_path
from tasks.core.progress import Progress
from tasks.core.refs import PhotosRef, Ref, RunContext, SceneRef
from tasks.core.scene import Scene
from tasks.core.sfm import given_places
from tasks.core.sfm.cameras import find_cameras as find_in_photos
from tasks.core.sfm.given_model import read_given
from tasks.core.sfm.import_model import import_model
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.process import WORKER_PERCENT
from tasks.core.sfm.undistort import undistort_scene
from tasks.core.stage_code import StageCode
from tasks.places.sources import capture_name, digest_of, is_remote_source
from tasks.places.workspace import open_workspace
from tasks.reporting.artifacts import Shown, show_picture
from tasks.reporting.progress import stage_progress
from tasks.reporting.recording import current_recording
from tasks.running.run_folder import noted_keys
from tasks.running.stage import Stage, open_output, run_stage

LIBRARIES = ("pycolmap", "PIL", "numpy", "scipy")
# The workers are separate programs, so no import refers to them.
CAMERAS = Stage(  # an output of its own within the stage, since it does not depend on the size of the images
    "cameras", StageCode(("tasks.core.sfm.cameras", "tasks.core.sfm.pipeline"), LIBRARIES), SfmSection
)
SFM = Stage(
    "sfm",
    StageCode((*CAMERAS.code.modules, "tasks.core.sfm.undistort", "tasks.core.sfm.scene_writer"), LIBRARIES),
    SfmSection,
)
IMPORT = Stage("sfm", StageCode(("tasks.core.sfm.import_model", "tasks.core.sfm.importer"), LIBRARIES), SfmSection)
CAMERAS_PICTURE = "pictures/cameras.png"
NAMED_PHOTOS = 8  # photos left out, in the picture's description


@SFM.task
def find_cameras(photos: PhotosRef, options: SfmOptions, image_size: int, context: RunContext) -> SceneRef:
    """Reconstruct a Scene whose images have a long side of at most `image_size` px. Raises RegistrationError."""
    naming_options: dict[str, JsonValue] = options.model_dump(mode="json")

    def compute(out: Path) -> SfmSection:
        cameras = _cameras(photos, naming_options, options, context)
        found = open_output(cameras, context)
        undistort_scene(found, open_output(photos, context), out, image_size, stage_progress(SFM.name))
        return CAMERAS.measured(cameras, context)

    return _scene_stage(
        photos.capture,
        SFM,
        context,
        inputs=[photos.digest],
        options={**naming_options, "image_size": image_size},
        compute=compute,
        rejected=photos.rejected,
    )


def _cameras(photos: PhotosRef, naming_options: dict[str, JsonValue], options: SfmOptions, context: RunContext) -> Ref:
    """Return the stored cameras of a photo set, computed if they are not in the workspace."""
    store, key = open_workspace(context.workspace), CAMERAS.key([photos.digest], naming_options)

    def find(out: Path) -> SfmSection:
        place = store.checkpoints(key, context.run if context.fresh else None)
        kept = None if place.is_remote else place  # 1 MB of features a photo: faster computed than sent
        found = find_in_photos(open_output(photos, context), out, options, stage_progress(SFM.name), kept)
        if kept is not None:
            store.remove_checkpoints(key)
        return found

    output = run_stage(CAMERAS, context, inputs=[photos.digest], options=naming_options, compute=find)
    if output.cached:
        stage_progress(SFM.name)(Progress(WORKER_PERCENT, 100, "cameras from the workspace"))
    return output


@IMPORT.task
def import_cameras(source: str, image_size: int, context: RunContext) -> SceneRef:
    """Take a user's own model (of COLMAP, a transforms.json, Polycam's export) as the Scene. Raises FormatError."""
    path = local_path(source).resolve()
    given = read_given(path)
    return _scene_stage(
        capture_name(path),
        IMPORT,
        context.model_copy(update={"dispatched": True}),  # the model is on this machine, so compute here
        inputs=[digest_of(given.folder, given.files)],
        options={"given": given.label, "image_size": image_size, "notes": list(given.notes)},
        compute=lambda out: import_model(path, out, image_size, stage_progress(IMPORT.name)),
    )


def is_given_model(source: str) -> bool:
    """Whether the source is a local folder with a user's own model, which is imported instead of ingested as photos.

    It may also be a transforms.json itself.
    """
    return not is_remote_source(source) and given_places.is_given_model(local_path(source))


def _scene_stage(
    capture: str,
    stage: Stage[SfmSection],
    context: RunContext,
    *,
    inputs: list[str],
    options: dict[str, JsonValue],
    compute: Callable[[Path], SfmSection],
    rejected: int = 0,
) -> SceneRef:
    output = run_stage(stage, context, inputs=inputs, options=options, compute=compute)
    measured = stage.measured(output, context)
    if (recording := current_recording()) is not None:
        recording.show("cameras", lambda: _camera_map(output, measured, rejected, context))
    return SceneRef.of(
        output,
        capture=capture,
        cameras=measured.registered,
        points=measured.points,
        cameras_cached=not output.cached and _had_cameras(context),
    )


def _had_cameras(context: RunContext) -> bool:
    """Whether this run, or the stage's own run, found its cameras in the workspace."""
    noted = noted_keys(open_workspace(context.workspace), context, CAMERAS.name)
    return any(output.cached for output in noted.values())


def _camera_map(output: Ref, measured: SfmSection, rejected: int, context: RunContext) -> Shown | None:
    """The scene from above as a picture, for people."""
    from tasks.core.report.charts import camera_map_picture  # loads matplotlib, which takes a second

    picture = camera_map_picture(Scene.load(open_output(output, context)), measured.left_out, rejected)
    described = "; ".join(f"{photo.name}: {photo.reason}" for photo in measured.left_out[:NAMED_PHOTOS])
    return show_picture(CAMERAS_PICTURE, picture, f"Cameras from above. {described}".strip(), context)
