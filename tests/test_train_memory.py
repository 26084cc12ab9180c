"""A training that runs out of memory ends with fewer Gaussians, and says so."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

import tasks.train
from tasks.core.errors import OutOfMemoryError
from tasks.core.measurements import TrainSection
from tasks.core.refs import RunContext, SceneRef
from tasks.core.training import plan, trainer
from tasks.core.training.cpu_engine import CpuEngine
from tasks.core.training.options import TrainOptions
from tasks.stage import read_measurements, run_stage
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

    output = run_stage("sfm", "1", context, inputs=[], options={}, compute=compute)
    return SceneRef.model_validate({**output.as_ref_fields(), "capture": "made", "cameras": 8, "points": 100})


def memory_for(count: int, patch: pytest.MonkeyPatch) -> None:
    """Let training with more than `count` Gaussians ask numpy for more memory than there is."""

    train = trainer.train

    def limited(scene, folder, options, *callbacks):  # type: ignore[no-untyped-def]
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
    assert "8 photos on the GPU." in read_measurements(gaussians.uri, TrainSection, context).decisions


def test_a_plan_for_fewer_gaussians_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "engine_for", lambda *_: CpuEngine(300))
    counts: list[int] = []
    options = OPTIONS.model_copy(update={"steps": 60})
    trainer.train(made_scene(tmp_path / "scene"), tmp_path, options, lambda stats: counts.append(stats.num_gaussians))
    assert max(counts) == 300
