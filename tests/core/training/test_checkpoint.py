"""A training that is stopped and resumed ends with the same bytes."""

import dataclasses
import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import FormatError
from tasks.core.scene import Observations, Scene
from tasks.core.training import schedule
from tasks.core.training.checkpoint import read_checkpoint, write_checkpoint
from tasks.core.training.engine import CpuEngine
from tasks.core.training.options import TrainOptions
from tasks.core.training.state import NUMBERS, TrainingState, identity_of
from tasks.core.training.trainer import TrainingStats, train
from tasks.core.training.views import EndlessShuffle, load_view
from tests.core.training.kept import KeptInFolder, StoppedError
from tests.support.step_clock import TICK_SECONDS, StepClock

# As short as a training can be that still has all sizes of photos, 40 refinements and evaluations.
OPTIONS = TrainOptions(max_image_size=96, steps=240, max_gaussians=900, sh_degree=1, backend="cpu", early_stop=False)


def ignore(_: TrainingStats) -> None:
    pass


@pytest.fixture(scope="module")
def uninterrupted(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(scene, folder, OPTIONS, ignore)
    return (folder / "scene.ply").read_bytes()


def test_stopped_at_several_steps_it_ends_with_the_same_bytes(
    scene: Scene, uninterrupted: bytes, tmp_path: Path
) -> None:
    stops = sorted(random.Random(3).sample(range(1, OPTIONS.steps), 4))
    whole = train(scene, tmp_path, OPTIONS, ignore)
    for stop in stops:
        with pytest.raises(StoppedError):
            train(scene, tmp_path, OPTIONS, ignore, None, KeptInFolder(tmp_path / "kept", stop.__eq__, stop=True))
    seen: list[TrainingStats] = []
    section = train(scene, tmp_path, OPTIONS, seen.append, None, KeptInFolder(tmp_path / "kept", lambda _: False))
    assert (tmp_path / "scene.ply").read_bytes() == uninterrupted
    assert section.resumed_from_step == stops[-1]
    assert seen[0].step == stops[-1] + 1
    assert [point.step for point in section.curve] == [point.step for point in whole.curve]
    assert [point.psnr_db for point in section.curve] == [point.psnr_db for point in whole.curve]
    assert [point.seconds for point in section.curve] == sorted(point.seconds for point in section.curve)
    assert whole.resumed_from_step is None


@pytest.mark.parametrize("stop", [225, 239])
def test_stopped_after_held_out_photos_joined_it_ends_with_the_same_bytes(
    scene: Scene, uninterrupted: bytes, tmp_path: Path, stop: int
) -> None:
    with pytest.raises(StoppedError):
        train(scene, tmp_path, OPTIONS, ignore, None, KeptInFolder(tmp_path / "kept", stop.__eq__, stop=True))
    section = train(scene, tmp_path, OPTIONS, ignore, None, KeptInFolder(tmp_path / "kept", lambda _: False))
    assert (section.resumed_from_step, section.held_out_joined_at_step) == (stop, 221)
    assert section.psnr_db is not None
    assert (tmp_path / "scene.ply").read_bytes() == uninterrupted


def test_stopped_before_an_early_end_it_ends_as_early(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "FLAT_SHARE", 0.5)  # so that it ends as soon as every photo can be compared
    options = OPTIONS.model_copy(update={"early_stop": True})
    whole = train(scene, tmp_path, options, ignore)
    assert whole.stopped_by == "flat quality"
    written = (tmp_path / "scene.ply").read_bytes()
    with pytest.raises(StoppedError):
        train(scene, tmp_path, options, ignore, None, KeptInFolder(tmp_path / "kept", (105).__eq__, stop=True))
    section = train(scene, tmp_path, options, ignore, None, KeptInFolder(tmp_path / "kept", lambda _: False))
    assert (section.resumed_from_step, section.steps) == (105, whole.steps)
    assert (tmp_path / "scene.ply").read_bytes() == written


def test_saving_changes_nothing(scene: Scene, uninterrupted: bytes, tmp_path: Path) -> None:
    checkpoints = KeptInFolder(tmp_path / "kept", lambda step: step % 50 == 0)
    train(scene, tmp_path, OPTIONS, ignore, None, checkpoints)
    assert (tmp_path / "scene.ply").read_bytes() == uninterrupted
    assert checkpoints.saved == [50, 100, 150, 200], "the last step needs none"


def test_the_time_that_was_spent_counts(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = OPTIONS.model_copy(update={"steps": 1_000_000, "time_budget_seconds": 100 * TICK_SECONDS})
    clock = StepClock()
    clock.rule(monkeypatch)
    seen: list[TrainingStats] = []

    def on_step(stats: TrainingStats) -> None:
        seen.append(stats)
        clock.tick()

    with pytest.raises(StoppedError):
        train(scene, tmp_path, options, on_step, None, KeptInFolder(tmp_path / "kept", (60).__eq__, stop=True))
    clock.seconds += 3600  # between the two trainings
    train(scene, tmp_path, options, on_step, None, KeptInFolder(tmp_path / "kept", lambda _: False))
    assert [stats.step for stats in seen] == list(range(1, 102))
    assert [stats.seconds for stats in seen] == [step * TICK_SECONDS for step in range(101)]


def state_at(scene: Scene, step: int, folder: Path) -> TrainingState:
    with pytest.raises(StoppedError):
        train(scene, folder, OPTIONS, ignore, None, KeptInFolder(folder / "kept", step.__eq__, stop=True))
    [path] = (folder / "kept").glob("*.npz")
    return TrainingState.restored(read_checkpoint(path, str(np.load(path)["belongs_to"])), OPTIONS, "cpu")


def test_a_state_has_nothing_that_is_not_saved(scene: Scene, tmp_path: Path) -> None:
    state = state_at(scene, 130, tmp_path)
    assert {field.name for field in fields(state)} == {
        *(
            "population",
            "exposures",
            "order",
            "torch_generator",
            "watch",
            "curve",
            "losses",
        ),  # each of which the next lines look at
        *NUMBERS,
    }, "a new field has to be saved, and looked at here"
    # 221 steps, 92 % of 240, come before held-out photos join
    assert (state.step, state.progress, state.initial_count) == (130, 130 / 221, 165)  # a tenth more than points
    assert state.refinements > 20
    assert state.exposures.log_gains.shape == (14, 3)
    assert state.evaluations == 15
    assert len(state.curve) == 15
    assert state.losses[:, :, 1].sum() == 130
    assert (state.losses[:16, :, 0].sum(axis=0) > 0).all()
    assert state.population.count > 500
    assert state.population.updates[: state.population.count].max() > 100
    assert state.population.first_moments["shN"].any()
    assert state.population.second_moments["means"].any()

    arrays = {name: array.copy() for name, array in state.arrays().items()}
    again = TrainingState.restored(arrays, OPTIONS, "cpu")
    assert again.arrays().keys() == arrays.keys()
    for name in arrays.keys() - {"numbers"}:  # the clock went on
        np.testing.assert_array_equal(again.arrays()[name], arrays[name], err_msg=name)
    assert [again.order.next() for _ in range(40)] == [state.order.next() for _ in range(40)]


def test_the_order_goes_on_over_the_end_of_a_round() -> None:
    order = EndlessShuffle(7, np.random.default_rng(1))
    given = [order.next() for _ in range(5)]
    again = EndlessShuffle.restored(order.round.copy(), order.numbers())
    rest = [order.next() for _ in range(30)]
    assert [again.next() for _ in range(30)] == rest
    rounds = [*given, *rest]
    assert all(sorted(rounds[start : start + 7]) == list(range(7)) for start in range(0, 35, 7))
    assert len({tuple(rounds[start : start + 7]) for start in range(0, 35, 7)}) > 1


def test_only_what_decides_the_course_makes_it_another_training(scene: Scene) -> None:
    views = [load_view(scene, camera, 96) for camera in scene.cameras]
    engine = CpuEngine()
    ours = identity_of(OPTIONS, engine, scene, views)
    assert identity_of(OPTIONS.model_copy(update={"checkpoint_seconds": 5}), engine, scene, views) == ours
    others = {
        identity_of(OPTIONS.model_copy(update={"random_seed": 1}), engine, scene, views),
        identity_of(OPTIONS, engine, scene, views[1:]),
        identity_of(OPTIONS, engine, scene, [load_view(scene, camera, 90) for camera in scene.cameras]),
    }
    views[3].photos[-1][4, 5, 1] ^= 1
    others.add(identity_of(OPTIONS, engine, scene, views))
    scene.points.xyz[0, 0] += 1e-9
    others.add(identity_of(OPTIONS, engine, scene, views))
    scene.points.xyz[0, 0] -= 1e-9
    seen_by_one = Observations(np.zeros(1, np.int32), np.zeros(1, np.int32))
    others.add(identity_of(OPTIONS, engine, dataclasses.replace(scene, observations=seen_by_one), views))
    assert ours not in others
    assert len(others) == 6


ARRAYS = {"a": np.arange(300, dtype=np.float32).reshape(100, 3), "numbers": np.frombuffer(b'{"x": 1}', np.uint8)}


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "1.npz", "me", ARRAYS)
    read = read_checkpoint(tmp_path / "1.npz", "me")
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    assert [entry.name for entry in tmp_path.iterdir()] == ["1.npz"]


def test_a_foreign_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "1.npz", "me", ARRAYS)
    with pytest.raises(FormatError, match="belongs to another training"):
        read_checkpoint(tmp_path / "1.npz", "you")
    monkeypatch.setattr("tasks.core.training.checkpoint.FORMAT", "spaceport checkpoint 2")
    with pytest.raises(FormatError, match=r"'spaceport checkpoint 1'.*'spaceport checkpoint 2'"):
        read_checkpoint(tmp_path / "1.npz", "me")


def test_a_damaged_checkpoint_is_refused_or_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "1.npz"
    write_checkpoint(path, "me", ARRAYS)
    whole = path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for position in rng.sample(range(len(whole)), 400):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read = read_checkpoint(path, "me")
        except FormatError:
            refused += 1
            continue
        assert read.keys() == ARRAYS.keys()
        for name in ARRAYS:  # the bit was one of a time stamp or the like
            np.testing.assert_array_equal(read[name], ARRAYS[name])
    assert refused > 250
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            read_checkpoint(path, "me")
    with pytest.raises(FileNotFoundError):  # as another run removes it: no reason to remove it as damaged
        read_checkpoint(tmp_path / "none.npz", "me")


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.npz"
    write_checkpoint(path, "me", ARRAYS)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(path, "me", {"a": np.zeros(5)})
    assert path.read_bytes() == before
