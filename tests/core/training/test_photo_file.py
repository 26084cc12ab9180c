"""Photos that memory does not suffice for: read from the disk with the same result, and no file is left."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import DiskFullError
from tasks.core.scene import Scene
from tasks.core.training import plan, views
from tasks.core.training.memory import SPARE_SHARE, cpu_bytes_each
from tasks.core.training.options import TrainOptions
from tasks.core.training.trainer import train
from tasks.core.training.views import PhotoFile, load_view, photo_bytes

OPTIONS = TrainOptions(max_image_size=90, steps=40, max_gaussians=900, sh_degree=0, backend="cpu")
# For the Gaussians and a thousandth of the photos.
LITTLE_MEMORY = int((OPTIONS.max_gaussians * cpu_bytes_each(OPTIONS.sh_degree) + 1000) / (1 - SPARE_SHARE))


def test_training_from_the_disk_ends_with_the_same_bytes(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("memory", "disk"):
        (tmp_path / name).mkdir()
    in_memory = train(scene, tmp_path / "memory", OPTIONS, lambda _: None)
    assert not any("on the disk" in sentence for sentence in in_memory.decisions)

    monkeypatch.setattr(plan, "available_memory_bytes", lambda: LITTLE_MEMORY)
    from_disk = train(scene, tmp_path / "disk", OPTIONS, lambda _: None)
    assert "The 16 photos (0.00 GB) are read from a file on the disk" in from_disk.decisions[0]
    assert from_disk.degradations == ()
    assert (tmp_path / "disk/scene.ply").read_bytes() == (tmp_path / "memory/scene.ply").read_bytes()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["scene.ply"]


def test_photos_in_the_file_are_those_in_memory(scene: Scene, tmp_path: Path) -> None:
    needed = photo_bytes(scene.cameras, OPTIONS.max_image_size)
    file = PhotoFile(tmp_path, needed)
    expected = [load_view(scene, camera, OPTIONS.max_image_size) for camera in scene.cameras]
    found = [load_view(scene, camera, OPTIONS.max_image_size, file.stored) for camera in scene.cameras]
    assert sum(photo.nbytes for view in expected for photo in view.photos) == needed
    del file  # arrays outlive it
    for one, other in zip(expected, found, strict=True):
        assert [camera.name for camera in one.cameras] == [camera.name for camera in other.cameras]
        for in_memory, on_disk in zip(one.photos, other.photos, strict=True):
            np.testing.assert_array_equal(in_memory, on_disk)
            assert type(on_disk) is np.ndarray
            assert on_disk.flags.c_contiguous, "else kernels are compiled anew"
            assert on_disk.flags.writeable


def test_neither_memory_nor_disk(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "available_memory_bytes", lambda: LITTLE_MEMORY)
    monkeypatch.setattr(views, "free_bytes", lambda _: 100_000)
    with pytest.raises(DiskFullError, match=r"0\.0 GB are free there\): lower train\.max_image_size"):
        train(scene, tmp_path, OPTIONS, lambda _: None)
    assert list(tmp_path.iterdir()) == []
