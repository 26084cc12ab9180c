"""The kept database: damage is found before use, and a place that fails costs a warning only."""

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pycolmap
import pytest

from tasks.core.errors import SfmCrashError, StageError
from tasks.core.sfm import stage
from tasks.core.sfm.job import DATABASE_FILE, Job
from tasks.core.sfm.kept_database import damage, keep, take
from tasks.core.sfm.options import SfmOptions
from tasks.core.storage.local import LocalCheckpoints

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

    monkeypatch.setattr(stage, "run_worker", fail)
    put(place, whole.read_bytes())
    job = Job(kind="reconstruct", source=tmp_path, out=tmp_path / "out", options=SfmOptions(), image_size=320)
    with pytest.raises(SfmCrashError, match="finds anew"), caplog.at_level(logging.WARNING):
        stage.run_job(job, lambda _: None, place)
    assert place.names() == []
    assert "the run that used it failed" in caplog.text
    with pytest.raises(type(error), match=str(error)) as caught:
        stage.run_job(job, lambda _: None, place)
    assert caught.value is error, "without kept features it is what it is"
