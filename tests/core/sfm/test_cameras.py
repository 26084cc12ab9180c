"""The kept database: damage is found before use, and a place that fails costs a warning only."""

import errno
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from tasks.core.errors import SfmCrashError, StageError
from tasks.core.photoset import PHOTOS_FILE
from tasks.core.progress import Progress
from tasks.core.scene import Scene
from tasks.core.sfm import cameras
from tasks.core.sfm.cameras import damage, drop, find_cameras, keep, take
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.worker import DATABASE_FILE, KEPT_PARTS_FOLDER, PART_ENDING
from tasks.core.storage.local import LocalCheckpoints
from tests.core.sfm.conftest import COUNT, IMAGE_SIZE, Flight
from tests.core.sfm.patched_worker import patch_worker
from tests.core.sfm.whole_stage import reconstruct

IMAGES = 500  # so that the file has many pages


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "database.db"
    with pycolmap.Database.open(path) as database:
        camera = pycolmap.Camera.create_from_model_name(1, "PINHOLE", 100.0, 64, 48)
        database.write_camera(camera, True)
        for number in range(IMAGES):
            database.write_image(pycolmap.Image(name=f"{number:06d}.jpg", camera_id=1))
    return path


@pytest.fixture
def place(tmp_path: Path) -> LocalCheckpoints:
    return LocalCheckpoints(tmp_path / "kept")


def put(place: LocalCheckpoints, content: bytes) -> None:
    with place.scratch() as scratch:
        (scratch / DATABASE_FILE).write_bytes(content)
        place.put(scratch / DATABASE_FILE)


def middle_zeroed(content: bytes) -> bytes:
    return content[: len(content) // 4] + bytes(len(content) // 2) + content[-(len(content) // 4) :]


def test_a_whole_one_is_taken(whole: Path, place: LocalCheckpoints, tmp_path: Path) -> None:
    assert damage(whole) is None
    put(place, whole.read_bytes())
    assert take(place, tmp_path / "taken.db")
    assert (tmp_path / "taken.db").read_bytes() == whole.read_bytes()
    assert place.names() == [DATABASE_FILE]


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: b"",
        lambda content: bytes(len(content)),
        lambda content: content[: len(content) // 2],
        middle_zeroed,
        lambda content: b"SQLite format 3\0",
    ],
    ids=["empty", "zeros", "half", "zeros in the middle", "only its first bytes"],
)
def test_a_damaged_one_is_dropped_with_a_line(
    harm: Callable[[bytes], bytes],
    whole: Path,
    place: LocalCheckpoints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put(place, harm(whole.read_bytes()))
    assert not take(place, tmp_path / "taken.db")
    assert not (tmp_path / "taken.db").exists()
    assert place.names() == []
    assert "features kept from an earlier run are not used: " in caplog.text


def test_a_place_that_takes_nothing_is_a_warning(
    whole: Path,
    place: LocalCheckpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    finished = Path(shutil.copy(whole, tmp_path / "finished.db"))

    def over_quota(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(LocalCheckpoints, "put", over_quota)
    keep(finished, place)
    assert "could not be kept for a later run" in caplog.text
    assert not finished.exists(), "else it would be tried ten times a second"
    assert place.names() == []


def test_a_place_that_cannot_be_read_is_a_warning(
    place: LocalCheckpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(LocalCheckpoints, "names", broken)
    assert not take(place, tmp_path / "taken.db")
    assert "could not be read" in caplog.text


def test_parts_of_many_photos_are_kept_beside_the_database(
    whole: Path, place: LocalCheckpoints, tmp_path: Path
) -> None:
    part = tmp_path / f"abc{PART_ENDING}"
    part.write_bytes(b"cameras of a part")
    put(place, whole.read_bytes())
    keep(part, place)
    assert not part.exists()
    (tmp_path / "work").mkdir()
    assert take(place, tmp_path / "work" / "taken.db")
    assert (tmp_path / "work" / KEPT_PARTS_FOLDER / part.name).read_bytes() == b"cameras of a part"
    drop(place, "a test")
    assert place.names() == [], "parts are of no use without the matches they were made from"


@pytest.mark.parametrize("error", [SfmCrashError("aborted."), StageError("a bug.")])
def test_one_that_a_worker_failed_with_is_not_used_again(
    error: StageError,
    whole: Path,
    place: LocalCheckpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Pages can be whole and hold what pycolmap cannot take."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cameras, "run_worker", fail)
    put(place, whole.read_bytes())
    (tmp_path / PHOTOS_FILE).write_text("{}")
    with pytest.raises(SfmCrashError, match="finds anew"), caplog.at_level(logging.WARNING):
        find_cameras(tmp_path, tmp_path / "out", SfmOptions(), lambda _: None, place)
    assert place.names() == []
    assert "the run that used it failed" in caplog.text
    with pytest.raises(type(error), match=str(error)) as caught:
        find_cameras(tmp_path, tmp_path / "out", SfmOptions(), lambda _: None, place)
    assert caught.value is error, "without kept features it is what it is"


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
        find_cameras(flight.photos, tmp_path / "first", SfmOptions(), end, kept)
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
    section = find_cameras(flight.photos, tmp_path / "out", SfmOptions(), lambda _: None, kept)
    assert section.registered == COUNT
    assert kept.names() == []
    assert "could not be copied for a later run" in (tmp_path / "out/sfm.log").read_text()
