"""A run that was ended: the next one keeps its features and its matches, and ends with the same cameras."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tasks.core.progress import Progress
from tasks.core.scene import Scene
from tasks.core.sfm.job import DATABASE_FILE
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.reconstruct import reconstruct
from tasks.core.storage.local import LocalCheckpoints
from tests.core.sfm.conftest import COUNT, IMAGE_SIZE, Flight
from tests.core.sfm.patched_worker import patch_worker


class EndedError(Exception):
    pass


def pairs_in(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("select count(*) from two_view_geometries").fetchone()[0])


@pytest.mark.parametrize("ended_while", ["matching", "placed"])
def test_features_and_matches_outlive_a_run(
    ended_while: str, flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = LocalCheckpoints(tmp_path / "kept")
    native = {"matching": "match_image_pairs", "placed": "incremental_mapping"}[ended_while]
    patch_worker(tmp_path, f"pycolmap.{native} = lambda *_: __import__('time').sleep(600)", monkeypatch)

    def end(progress: Progress) -> None:
        if progress.note.startswith(ended_while):
            raise EndedError

    with pytest.raises(EndedError):
        reconstruct(flight.photos, tmp_path / "first", SfmOptions(), IMAGE_SIZE, end, kept)
    monkeypatch.undo()
    assert kept.names() == [DATABASE_FILE]
    assert pairs_in(tmp_path / "kept" / DATABASE_FILE) == (0 if ended_while == "matching" else COUNT * (COUNT - 1) // 2)

    seen: list[Progress] = []
    reconstruct(flight.photos, tmp_path / "second", SfmOptions(), IMAGE_SIZE, seen.append, kept)
    assert not [progress.note for progress in seen if progress.note.startswith("features")]
    poses = [camera.cam_from_world for camera in Scene.load(tmp_path / "second").cameras]
    np.testing.assert_allclose(poses, [camera.cam_from_world for camera in flight.scene.cameras], atol=1e-6)


def test_a_disk_without_room_for_a_copy_does_not_end_the_run(
    flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy for a later run is a convenience: features and matches are found and used all the same."""
    no_room = """
import shutil
copyfile = shutil.copyfile

def full(source, target, **options):
    if str(target).endswith(".partial"):
        raise OSError(28, "No space left on device")
    return copyfile(source, target, **options)

shutil.copyfile = full
"""
    patch_worker(tmp_path, no_room, monkeypatch)
    kept = LocalCheckpoints(tmp_path / "kept")
    section = reconstruct(flight.photos, tmp_path / "out", SfmOptions(), IMAGE_SIZE, lambda _: None, kept)
    assert section.registered == COUNT
    assert kept.names() == []
    assert "could not be copied for a later run" in (tmp_path / "out/sfm.log").read_text()
