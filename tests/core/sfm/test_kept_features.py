"""A run that was ended while it matched: the next one keeps its features, and ends with the same cameras."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.progress import Progress
from tasks.core.scene import Scene
from tasks.core.sfm.job import FEATURES_FILE
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.reconstruct import reconstruct
from tasks.core.storage.checkpoint_folders import LocalCheckpoints
from tests.core.sfm.conftest import IMAGE_SIZE, Flight


class EndedError(Exception):
    pass


def test_features_outlive_a_run_that_is_ended_while_matching(flight: Flight, tmp_path: Path) -> None:
    kept = LocalCheckpoints(tmp_path / "kept")

    def end(progress: Progress) -> None:
        if progress.note.startswith(("matching", "placed")):
            raise EndedError

    with pytest.raises(EndedError):
        reconstruct(flight.photos, tmp_path / "first", SfmOptions(), IMAGE_SIZE, end, kept)
    assert kept.names() == [FEATURES_FILE]

    seen: list[Progress] = []
    reconstruct(flight.photos, tmp_path / "second", SfmOptions(), IMAGE_SIZE, seen.append, kept)
    assert not [progress.note for progress in seen if progress.note.startswith("features")]
    poses = [camera.cam_from_world for camera in Scene.load(tmp_path / "second").cameras]
    np.testing.assert_allclose(poses, [camera.cam_from_world for camera in flight.scene.cameras], atol=1e-6)
