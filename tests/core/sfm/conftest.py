"""One reconstruction of the small flight, made once for all tests that look at its result."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.core.measurements import SfmSection
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import PhotoSet
from tasks.core.progress import Progress, ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.options import SfmOptions
from tests.core.sfm.flight import write_flight
from tests.core.sfm.whole_stage import reconstruct

COUNT = 9
IMAGE_SIZE = 320


@dataclass(frozen=True)
class Flight:
    photos: Path
    photo_set: PhotoSet
    out: Path
    section: SfmSection
    scene: Scene
    progress: list[Progress] = field(default_factory=list)


@pytest.fixture(scope="session")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Flight:
    root = tmp_path_factory.mktemp("flight")
    write_flight(root / "source", COUNT, gps=True)
    photo_set = ingest(root / "source", root / "photos", PhotosOptions(), ignore_progress).photo_set
    seen: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # the worker must find its modules from anywhere
        section = reconstruct(Path("photos"), Path("scene"), SfmOptions(), IMAGE_SIZE, seen.append)
    return Flight(root / "photos", photo_set, root / "scene", section, Scene.load(root / "scene"), seen)
