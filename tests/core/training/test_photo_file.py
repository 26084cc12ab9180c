"""Photos that memory does not suffice for: read from the disk with the same result, and no file is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tasks.core.errors import DiskFullError
from tasks.core.scene import Scene
from tasks.core.training import photo_file, plan
from tasks.core.training.memory import SPARE_SHARE, cpu_bytes_each
from tasks.core.training.options import TrainOptions
from tasks.core.training.photo_file import PhotoFile, StoredPhoto
from tasks.core.training.trainer import train
from tasks.core.training.views import EndlessShuffle, Squares, in_memory, load_view, photo_bytes

OPTIONS = TrainOptions(max_image_size=90, steps=40, max_gaussians=900, sh_degree=0, backend="cpu")
# For the Gaussians and a thousandth of the photos.
LITTLE_MEMORY = int((OPTIONS.max_gaussians * cpu_bytes_each(OPTIONS.sh_degree) + 1000) / (1 - SPARE_SHARE))


class Counted(PhotoFile):
    """A file of photos that the tests find again."""

    made: ClassVar[list["Counted"]] = []

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made.append(self)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    """The files of photos that trainings make."""
    monkeypatch.setattr(Counted, "made", [])
    monkeypatch.setattr(plan, "PhotoFile", Counted)
    return Counted.made


@pytest.fixture(scope="module")
def from_memory(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The Gaussians of a training with all photos in memory."""
    folder = tmp_path_factory.mktemp("memory")
    section = train(scene, folder, OPTIONS, lambda _: None)
    assert not any("on the disk" in sentence for sentence in section.decisions)
    return (folder / "scene.ply").read_bytes()


def test_training_from_the_disk_ends_with_the_same_bytes(
    scene: Scene, from_memory: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[Counted]
) -> None:
    monkeypatch.setattr(plan, "available_memory_bytes", lambda: LITTLE_MEMORY)
    from_disk = train(scene, tmp_path, OPTIONS, lambda _: None)
    assert "The 16 photos (0.00 GB) are read from a file on the disk" in from_disk.decisions[0]
    assert "at most 2 of them are in memory" in from_disk.decisions[0]
    assert from_disk.degradations == ()
    assert (tmp_path / "scene.ply").read_bytes() == from_memory
    assert [path.name for path in tmp_path.iterdir()] == ["scene.ply"]
    assert files[0].most_held == 2


@pytest.mark.parametrize("most", [2, 5, 15])
def test_no_more_photos_than_asked_for_are_in_memory(
    scene: Scene, from_memory: bytes, tmp_path: Path, files: list[Counted], most: int
) -> None:
    """Gaps, held-out views, the prune and the joined photos included."""
    options = OPTIONS.model_copy(update={"max_photos_in_memory": most})
    section = train(scene, tmp_path, options, lambda _: None)
    assert f"at most {most} of them are in memory: train.max_photos_in_memory is {most}." in section.decisions[0]
    assert section.held_out_joined_at_step
    assert (tmp_path / "scene.ply").read_bytes() == from_memory
    assert 2 <= files[0].most_held <= most


def test_as_many_as_there_are_need_no_file(
    scene: Scene, from_memory: bytes, tmp_path: Path, files: list[Counted]
) -> None:
    options = OPTIONS.model_copy(update={"max_photos_in_memory": 16})
    train(scene, tmp_path, options, lambda _: None)
    assert (tmp_path / "scene.ply").read_bytes() == from_memory
    assert files == []


def test_free_memory_decides_between_the_gaussians_and_the_photos(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo of 90x68 px takes 18,360 bytes."""
    gaussians = OPTIONS.max_gaussians * cpu_bytes_each(OPTIONS.sh_degree)
    for photos, most in ((0.5, 2), (6.5, 6), (15.5, 15)):
        free = int((gaussians + photos * 18_360) / (1 - SPARE_SHARE))
        monkeypatch.setattr(plan, "available_memory_bytes", lambda free=free: free)
        file, _ = plan.room_for_photos(scene.cameras, OPTIONS, tmp_path)
        assert file is not None
        assert file.most_in_memory == most


def stored(tmp_path: Path, photos: int, most: int) -> tuple[PhotoFile, list[StoredPhoto]]:
    """Photos of 4x6 px, all of whose bytes are the photo's number, in two sizes."""
    file = PhotoFile(tmp_path, photos * 2 * 72, most)
    return file, [file.stored([np.full((4, 6, 3), i, np.uint8)] * 2) for i in range(photos)]


def test_expected_photos_are_read_before_they_are_used(tmp_path: Path) -> None:
    file, photos = stored(tmp_path, 9, 4)
    in_use = photos[0][0]
    file.expect([(photos[i], 1) for i in range(1, 9)])
    file._reader.shutdown()
    assert list(file._held) == [photos[0].places[0], *(photos[i].places[1] for i in (1, 2, 3))]
    assert [int(held.photo[0, 0, 0]) for held in file._held.values() if held.photo is not None] == [0, 1, 2, 3]
    assert (in_use == 0).all()
    assert file.most_held == 4


def test_photos_used_longest_ago_make_room(tmp_path: Path) -> None:
    file, photos = stored(tmp_path, 9, 3)
    for i in (0, 1, 2, 0, 3):
        assert (photos[i][0] == i).all()
    assert list(file._held) == [photos[i].places[0] for i in (2, 0, 3)]
    assert file.most_held == 3


def test_a_photo_that_the_caller_keeps_counts(tmp_path: Path) -> None:
    file, photos = stored(tmp_path, 9, 3)
    kept = [photos[0][0], photos[1][0]]
    for i in range(2, 9):
        assert (photos[i][0] == i).all()
        file.expect([(photos[(i + 1) % 9], 0)])
    assert [int(photo[0, 0, 0]) for photo in kept] == [0, 1]
    assert file.most_held == 3


def test_the_reader_ends_with_the_file(tmp_path: Path) -> None:
    file, photos = stored(tmp_path, 3, 2)
    file.expect([(photos[0], 0)])
    [thread] = file._reader._threads
    del file, photos
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("given", [0, 3, 7])
def test_a_shuffle_knows_what_comes(given: int) -> None:
    shuffle = EndlessShuffle(8, np.random.default_rng(3))
    for _ in range(8 + given):
        shuffle.next()
    coming = shuffle.upcoming(6)
    assert len(coming) == 6
    assert [shuffle.next() for _ in range(6)] == coming


def test_photos_in_the_file_are_those_in_memory(scene: Scene, tmp_path: Path) -> None:
    needed = photo_bytes(scene.cameras, OPTIONS.max_image_size)
    file = PhotoFile(tmp_path, needed, 2)
    expected = [load_view(scene, camera, OPTIONS.max_image_size) for camera in scene.cameras]
    found = [load_view(scene, camera, OPTIONS.max_image_size, file.stored) for camera in scene.cameras]
    assert sum(photo.nbytes for view in expected for photo in view.photos) == needed
    del file  # the views keep it
    for one, other in zip(expected, found, strict=True):
        assert [camera.name for camera in one.cameras] == [camera.name for camera in other.cameras]
        for kept, on_disk in zip(one.photos, other.photos, strict=True):
            np.testing.assert_array_equal(kept, on_disk)
            assert type(on_disk) is np.ndarray
            assert on_disk.flags.c_contiguous, "else kernels are compiled anew"
            assert on_disk.flags.writeable


def test_parts_of_photos_take_the_place_of_parts_alone(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = make_scene(cameras=1, width=320, height=240)  # large enough for parts
    [camera] = scene.cameras
    counted = np.zeros((48, 64), bool)
    counted[10:30, 20:50] = True
    part = Squares(counted, 64)
    needed = photo_bytes([camera], 640, {camera.name: part})
    file = PhotoFile(tmp_path, needed, 2)
    expected, found = (load_view(scene, camera, 640, stored, None, part) for stored in (in_memory, file.stored))
    assert sum(photo.nbytes for photo in found.photos) == needed < photo_bytes([camera], 640)
    for one, other in zip(expected.photos, found.photos, strict=True):
        np.testing.assert_array_equal(one, other)


def test_neither_memory_nor_disk(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_memory_bytes", lambda: LITTLE_MEMORY)
    monkeypatch.setattr(photo_file, "free_bytes", lambda _: 100_000)
    with pytest.raises(DiskFullError, match=r"0\.0 GB are free there\): lower train\.max_image_size"):
        train(scene, tmp_path, OPTIONS, lambda _: None)
    assert list(tmp_path.iterdir()) == []
