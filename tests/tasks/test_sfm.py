"""Outputs of the sfm stage: cameras are found once, whatever size their images have."""

import shutil
from pathlib import Path

import pytest

from tasks import sfm
from tasks.core.errors import FormatError
from tasks.core.measurements import SfmSection
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.refs import PhotosRef, RunContext, SceneRef
from tasks.core.scene import Scene
from tasks.core.sfm.options import SfmOptions
from tasks.core.storage import MANIFEST_FILE, MEASUREMENTS_FILE
from tasks.core.storage.workspace import CheckpointPlace
from tasks.photos import ingest_photos
from tasks.reporting.progress import listening
from tests.core.sfm.flight import write_flight

SIZE, OTHER_SIZE = 320, 240  # px


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PhotosRef, SceneRef]:
    """A workspace in which the stage has ended once."""
    root = tmp_path_factory.mktemp("sfm")
    write_flight(root / "flight", 9, gps=True)
    context = RunContext(workspace=str(root / "workspace"), run="flight-1")
    photos = ingest_photos.fn(str(root / "flight"), PhotosOptions(), context)
    return root / "workspace", photos, sfm.find_cameras.fn(photos, SfmOptions(), SIZE, context)


class Stage:
    """The stage in a copy of that workspace. How often cameras are really looked for is counted, not done."""

    def __init__(self, finished: tuple[Path, PhotosRef, SceneRef], folder: Path) -> None:
        stored, photos, self.first = finished
        shutil.copytree(stored, folder, ignore=shutil.ignore_patterns(".*"))
        self.photos = photos.model_copy(update={"uri": photos.uri.replace(str(stored), str(folder))})
        self.workspace, self.searches = folder, 0
        self.context = RunContext(workspace=str(folder), run="flight-2")
        [self._cameras] = (stored / "stages" / "cameras").iterdir()

    def search(
        self, photos: Path, out: Path, options: SfmOptions, on_progress: ProgressCallback, kept: CheckpointPlace | None
    ) -> SfmSection:
        """Instead of `find_cameras`: the cameras that were found already."""
        self.searches += 1
        ignored = shutil.ignore_patterns(MANIFEST_FILE, MEASUREMENTS_FILE)
        shutil.copytree(self._cameras, out, dirs_exist_ok=True, ignore=ignored)
        return SfmSection.model_validate_json((self._cameras / MEASUREMENTS_FILE).read_bytes())

    def run(self, size: int = SIZE, *, fresh: bool = False, **options: int) -> SceneRef:
        """What the stage makes in a second run."""
        context = self.context.model_copy(update={"fresh": fresh})
        return sfm.find_cameras.fn(self.photos, SfmOptions.model_validate(options), size, context)


@pytest.fixture
def stage(finished: tuple[Path, PhotosRef, SceneRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage(finished, tmp_path / "workspace")
    monkeypatch.setattr(sfm, "find_in_photos", stage.search)
    return stage


def test_another_size_of_images_only_undistorts(stage: Stage) -> None:
    notes: list[str] = []

    def listen(name: str, progress: Progress) -> None:
        notes.append(f"{name}: {progress.note}")

    with listening(listen):
        other = stage.run(OTHER_SIZE)
    assert stage.searches == 0
    assert (other.cached, other.cameras_cached) == (False, True)
    assert other.seconds is not None, "what this run spent on it"
    assert notes[0] == "sfm: cameras from the workspace"
    assert all("undistorted" in note for note in notes[1:])
    before, after = Scene.load(Path(stage.first.uri)), Scene.load(Path(other.uri))
    for ours, theirs in zip(after.cameras, before.cameras, strict=True):
        assert ours.name == theirs.name
        assert ours.cam_from_world.tolist() == theirs.cam_from_world.tolist()
        assert (ours.width, theirs.width) == (OTHER_SIZE, SIZE)
        assert after.image(ours).shape == (ours.height, ours.width, 3)
    assert (other.cameras, other.points) == (stage.first.cameras, stage.first.points)
    assert after.georeference == before.georeference
    measured = [(Path(ref.uri) / MEASUREMENTS_FILE).read_bytes() for ref in (stage.first, other)]
    assert measured[0] == measured[1]


def test_the_same_is_in_the_workspace(stage: Stage) -> None:
    again = stage.run()
    assert (again.cached, again.cameras_cached, again.digest) == (True, False, stage.first.digest)
    shutil.rmtree(stage.workspace / "stages" / "cameras")
    assert stage.run().cached, "a scene needs its cameras no more"
    assert stage.searches == 0


def test_another_option_looks_for_cameras_again(stage: Stage) -> None:
    other = stage.run(random_seed=1)
    assert stage.searches == 1
    assert (other.cached, other.cameras_cached) == (False, False)
    assert len(list((stage.workspace / "stages" / "cameras").iterdir())) == 2


def test_fresh_computes_both(stage: Stage) -> None:
    fresh = stage.run(fresh=True)
    assert stage.searches == 1
    assert (fresh.cached, fresh.cameras_cached) == (False, False)
    assert fresh.digest == stage.first.digest, "a model that was stored between the halves is as it was"
    damaged = next((stage.workspace / "stages" / "cameras").rglob("cameras.bin"))
    damaged.write_bytes(b"damaged")
    stage.run(OTHER_SIZE)
    assert stage.searches == 2, "damaged cameras are found anew"


def test_cameras_outlive_a_failure_after_them(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise FormatError("damaged.")

    with monkeypatch.context() as patch:
        patch.setattr(sfm, "undistort_scene", fail)
        with pytest.raises(FormatError):
            stage.run(OTHER_SIZE, random_seed=1)
    again = stage.run(OTHER_SIZE, random_seed=1)
    assert stage.searches == 1
    assert not again.cameras_cached, "this run found them itself"


def test_a_run_of_its_own_tells_of_the_cameras_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = stage.context.model_copy(update={"dispatched": True})

    def run_elsewhere(name: str, context: RunContext, changed: object) -> None:
        assert name == "sfm", "cameras are no stage of their own"
        sfm.find_cameras.fn(stage.photos, SfmOptions(), OTHER_SIZE, elsewhere)

    monkeypatch.setattr("tasks.running.stage.run_elsewhere", run_elsewhere)
    monkeypatch.setenv("SPACEPORT_DISPATCH", "sfm")
    other = stage.run(OTHER_SIZE)
    assert (other.cached, other.cameras_cached, stage.searches) == (False, True, 0)


def test_features_are_kept_for_the_cameras_whatever_size_is_asked_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was ended while it looked for cameras can go on with another preset."""
    kept: list[list[str]] = []

    def search(
        photos: Path, out: Path, options: SfmOptions, on_progress: ProgressCallback, place: CheckpointPlace
    ) -> SfmSection:
        kept.append(place.names())
        with place.scratch() as scratch:
            (scratch / "features").write_bytes(b"")
            place.put(scratch / "features")
        raise FormatError("ended.")

    monkeypatch.setattr(sfm, "find_in_photos", search)
    for size in (SIZE, OTHER_SIZE):
        with pytest.raises(FormatError):
            stage.run(size, random_seed=1)
    assert kept == [[], ["features"]]
