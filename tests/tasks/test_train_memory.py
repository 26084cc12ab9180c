"""A training that runs out of memory ends with fewer Gaussians, and says so."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

import tasks.running.stage
import tasks.train
from tasks.core.errors import OutOfMemoryError
from tasks.core.refs import RunContext, SceneRef
from tasks.core.training import memory, plan, trainer
from tasks.core.training.engine import CpuEngine
from tasks.core.training.options import TrainOptions
from tasks.running.checkpoints import StageCheckpoints
from tasks.running.stage import run_stage
from tasks.sfm import SFM
from tests.core.training.scenes import made_scene

OPTIONS = TrainOptions(steps=12, max_gaussians=4000, max_image_size=64, hold_out_every=0, backend="cpu")


class Nothing(BaseModel):
    pass


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(workspace=str(tmp_path / "workspace"), run="test")


@pytest.fixture
def scene(context: RunContext) -> SceneRef:
    def compute(folder: Path) -> Nothing:
        made_scene(folder)
        return Nothing()

    output = run_stage(SFM, context, inputs=[], compute=compute)
    return SceneRef.of(output, capture="made", cameras=8, points=100)


def memory_for(count: int, patch: pytest.MonkeyPatch) -> None:
    """Let training with more than `count` Gaussians ask numpy for more memory than there is."""

    train = trainer.train

    def limited(scene, folder, options, *callbacks):
        if options.max_gaussians > count:
            np.ones(2**44)
        return train(scene, folder, options, *callbacks)

    patch.setattr(trainer, "train", limited)


def test_half_the_gaussians(scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(2000, monkeypatch)
    gaussians = tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert 0 < gaussians.count <= 2000
    [reason] = gaussians.degradations
    assert "4,000" in reason
    assert "2,000" in reason


def test_the_degraded_output_is_not_taken_for_the_whole(
    scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        memory_for(2000, patch)
        tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    again = tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert not again.cached
    assert again.degradations == ()


def test_photos_leave_memory_before_gaussians_do_and_the_output_is_the_one_asked_for(
    scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "FEW_PHOTOS_IN_MEMORY", 2)
    monkeypatch.setattr(memory, "LARGE_PART", 0.0)
    whole = trainer.train

    def limited(scene, folder, options, *callbacks):
        if options.max_photos_in_memory is None:
            np.ones(2**44)
        return whole(scene, folder, options, *callbacks)

    monkeypatch.setattr(trainer, "train", limited)
    gaussians = tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert gaussians.degradations == (), "the result is the same"
    [sentence, *_] = tasks.train.TRAIN.measured(gaussians, context).decisions
    assert "at most 2 of them are in memory: train.max_photos_in_memory is 2." in sentence
    assert tasks.train.train_gaussians.fn(scene, OPTIONS, context).cached


def test_a_run_of_its_own_leaves_the_decision_to_the_one_that_asked(
    scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(2000, monkeypatch)
    with pytest.raises(OutOfMemoryError, match="4,000 Gaussians"):
        tasks.train.train_gaussians.fn(scene, OPTIONS, context.model_copy(update={"dispatched": True}))


def test_too_little_for_the_smallest_budget(
    scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(10, monkeypatch)
    with pytest.raises(OutOfMemoryError, match="1,000 Gaussians"):
        tasks.train.train_gaussians.fn(scene, OPTIONS, context)


def test_what_the_engine_gave_up_reaches_the_report(
    scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = CpuEngine(900, ("No growth beyond 900 Gaussians.",))
    engine.decisions = ("8 photos on the GPU.",)
    monkeypatch.setattr(plan, "engine_for", lambda *_: engine)
    gaussians = tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert gaussians.degradations == ("No growth beyond 900 Gaussians.",)
    assert "8 photos on the GPU." in tasks.train.TRAIN.measured(gaussians, context).decisions


def test_a_plan_for_fewer_gaussians_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "engine_for", lambda *_: CpuEngine(300))
    counts: list[int] = []
    options = OPTIONS.model_copy(update={"steps": 60})
    trainer.train(made_scene(tmp_path / "scene"), tmp_path, options, lambda stats: counts.append(stats.num_gaussians))
    assert max(counts) == 300


def checkpoints_left(context: RunContext) -> list[Path]:
    return list((Path(context.workspace) / "checkpoints").rglob("*.npz"))


def running_out_after_a_checkpoint(count: int, patch: pytest.MonkeyPatch) -> list[int]:
    """Let training with more than `count` Gaussians save its state and then run out of memory; which ones have."""
    saved: list[int] = []
    train = trainer.train

    def limited(scene, folder, options, on_step, on_evaluation, checkpoints):
        if options.max_gaussians > count:
            checkpoints.save(1, "me", {"a": np.zeros(3)})
            saved.append(options.max_gaussians)
            np.ones(2**44)
        return train(scene, folder, options, on_step, on_evaluation, checkpoints)

    patch.setattr(trainer, "train", limited)
    return saved


@pytest.mark.parametrize("count", [2000, 10], ids=["until half", "at every size"])
def test_no_checkpoint_of_a_budget_that_was_too_large_is_left(
    count: int, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = running_out_after_a_checkpoint(count, monkeypatch)
    if count == 10:
        with pytest.raises(OutOfMemoryError):
            tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    else:
        tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert saved[0] == OPTIONS.max_gaussians
    assert checkpoints_left(context) == []


def test_no_checkpoint_of_a_run_of_its_own_that_was_killed_is_left(
    scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel kills it; the one that asked says that memory did not suffice, and has to clear up after it."""

    def killed(stage: str, context: RunContext, changed: dict[str, TrainOptions]) -> None:
        budget = changed["options"]
        naming = budget.model_dump(mode="json", exclude=set(tasks.train.NOT_NAMING))
        key = tasks.train.TRAIN.key([scene.digest], naming, "cpu")
        StageCheckpoints(context, key, 1).save(1, "me", {"a": np.zeros(3)})
        assert checkpoints_left(context)
        raise OutOfMemoryError("The train run was killed 2 times.")

    monkeypatch.setattr(tasks.running.stage, "runs_elsewhere", lambda *_: True)
    monkeypatch.setattr(tasks.running.stage, "run_elsewhere", killed)
    with pytest.raises(OutOfMemoryError, match="killed 2 times"):
        tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert checkpoints_left(context) == []
