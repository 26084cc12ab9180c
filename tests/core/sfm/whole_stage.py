"""Both halves of the sfm stage, one after the other."""

from pathlib import Path

from tasks.core.measurements import SfmSection
from tasks.core.progress import ProgressCallback
from tasks.core.sfm.cameras import find_cameras
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.undistort import undistort_scene
from tasks.core.storage.workspace import CheckpointPlace


def reconstruct(
    photos: Path,
    out: Path,
    options: SfmOptions,
    image_size: int,
    on_progress: ProgressCallback,
    kept: CheckpointPlace | None = None,
) -> SfmSection:
    """Write the scene into `out` and the cameras beside it; returns what was measured."""
    section = find_cameras(photos, cameras_of(out), options, on_progress, kept)
    undistort_scene(cameras_of(out), photos, out, image_size, on_progress)
    return section


def cameras_of(out: Path) -> Path:
    """Where the cameras of a scene are."""
    return out.with_name(f"{out.name}-cameras")
