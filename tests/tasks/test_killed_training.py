"""The train stage's process is killed, terminated and interrupted; the next one continues from its checkpoint."""

import os
import random
import signal
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel

import tasks.train
from tasks.core.refs import GaussiansRef, RunContext, SceneRef
from tasks.core.training.options import TrainOptions
from tasks.running.stage import open_output, run_stage
from tasks.sfm import SFM
from tests.core.training.scenes import made_scene
from tests.support.step_clock import TICK_SECONDS
from tests.tasks.train_process import TrainProcess

OPTIONS = TrainOptions(max_image_size=96, steps=600, max_gaussians=1500, sh_degree=2, backend="cpu", early_stop=False)
INTERVAL_STEPS = 16
INTERVAL_SECONDS = INTERVAL_STEPS * TICK_SECONDS


class Nothing(BaseModel):
    pass


def stored_scene(context: RunContext) -> SceneRef:
    def compute(folder: Path) -> Nothing:
        made_scene(folder)
        return Nothing()

    output = run_stage(SFM, context, inputs=[], compute=compute)
    return SceneRef.of(output, capture="made", cameras=16, points=150)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    context = RunContext(workspace=str(tmp_path_factory.mktemp("uninterrupted")), run="flight-0")
    return splat(tasks.train.train_gaussians.fn(stored_scene(context), OPTIONS, context), context)


def splat(gaussians: GaussiansRef, context: RunContext) -> bytes:
    assert not gaussians.cached
    return (open_output(gaussians, context) / "scene.ply").read_bytes()


def resumed_from(gaussians: GaussiansRef, context: RunContext) -> int | None:
    return tasks.train.TRAIN.measured(gaussians, context).resumed_from_step


@pytest.fixture
def context(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    workspace = str(tmp_path / "workspace")
    if request.param == "s3":
        workspace = f"s3://{request.getfixturevalue('s3_environment').new_bucket()}/workspace"
    return RunContext(workspace=workspace, run="flight-1", fresh=request.param == "fresh")


@pytest.mark.parametrize(("context", "kills"), [("ordinary", 3), ("fresh", 1), ("s3", 1)], indirect=["context"])
def test_kill_9_at_random_steps(context: RunContext, kills: int, uninterrupted: bytes, tmp_path: Path) -> None:
    scene = stored_scene(context)
    options = OPTIONS.model_copy(update={"checkpoint_seconds": INTERVAL_SECONDS})
    reached = 0
    for step in sorted(random.Random(11).sample(range(150, OPTIONS.steps - 50), kills)):
        run = TrainProcess(scene, options, context, dict(os.environ), in_flow=False)
        run.read_until(step)
        run.process.kill()
        run.read_rest()
        if reached:
            _lost_at_most_an_interval(reached, resumed_at=run.steps[0] - 1)
        reached = run.steps[-1]
        assert run.process.returncode == -signal.SIGKILL
        assert step <= reached < OPTIONS.steps

    gaussians = tasks.train.train_gaussians.fn(scene, options, context)
    resumed_at = resumed_from(gaussians, context)
    assert resumed_at is not None
    _lost_at_most_an_interval(reached, resumed_at)
    assert splat(gaussians, context) == uninterrupted
    left = [path for path in (tmp_path / "workspace").rglob("*") if path.suffix in (".npz", ".partial")]
    assert left == [Path(scene.uri) / "points.npz"] or context.workspace.startswith("s3://")


def _lost_at_most_an_interval(reached: int, resumed_at: int) -> None:
    assert 0 < resumed_at <= reached
    assert reached - resumed_at <= INTERVAL_STEPS, f"from step {reached} back to {resumed_at}"


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("context", "number"),
    [("ordinary", signal.SIGTERM), ("ordinary", signal.SIGINT)],
    indirect=["context"],
)
def test_a_signal_saves_the_last_step(context: RunContext, number: signal.Signals, uninterrupted: bytes) -> None:
    scene = stored_scene(context)
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    run = TrainProcess(scene, OPTIONS, context, environment, in_flow=True)  # no checkpoint is due for a minute
    run.read_until(200)
    run.process.send_signal(number)
    run.process.send_signal(number)  # as people do
    run.read_rest()
    assert run.process.returncode != 0
    assert run.steps[-1] < OPTIONS.steps

    gaussians = tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert resumed_from(gaussians, context) == run.steps[-1], "not one step is lost"
    assert splat(gaussians, context) == uninterrupted


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("context", ["s3"], indirect=True)
def test_another_machine_goes_on(context: RunContext, uninterrupted: bytes, tmp_path: Path) -> None:
    """As when a spot instance is taken away: all that the two have in common is the workspace."""
    scene = stored_scene(context)

    def machine(name: str) -> TrainProcess:
        own = {"PREFECT_API_URL": PREFECT_API_URL.value() or "", "SPACEPORT_HOME": str(tmp_path / name)}
        return TrainProcess(scene, OPTIONS, context, {**os.environ, **own}, in_flow=True)

    first = machine("first")
    first.read_until(200)
    first.process.send_signal(signal.SIGTERM)
    first.read_rest()
    reached = first.steps[-1]
    assert first.process.returncode != 0
    assert 200 <= reached < OPTIONS.steps
    second = machine("second")
    second.read_rest()
    assert second.process.returncode == 0
    assert second.steps[0] == reached + 1, "not one step is lost"
    trained = tasks.train.train_gaussians.fn(scene, OPTIONS, context)
    assert trained.cached, "the second machine has stored it"
    assert resumed_from(trained, context) == reached
    assert (open_output(trained, context) / "scene.ply").read_bytes() == uninterrupted


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("context", ["ordinary"], indirect=True)
def test_kill_9_in_the_second_of_two_cells(context: RunContext, tmp_path: Path) -> None:
    """The first one is there, the second one continues from its checkpoint, and the splat is that of no kill."""
    options = OPTIONS.model_copy(update={"steps": 120, "cells": 2, "checkpoint_seconds": INTERVAL_SECONDS})
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    scene = stored_scene(context)
    run = TrainProcess(scene, options, context, environment, in_flow=True)
    run.read_until_next(60)
    run.process.kill()
    run.read_rest()
    reached = run.steps[-1]
    again = TrainProcess(scene, options, context, environment, in_flow=True)
    again.read_rest()
    assert again.process.returncode == 0
    _lost_at_most_an_interval(reached, resumed_at=again.steps[0] - 1)
    elsewhere = RunContext(workspace=str(tmp_path / "elsewhere"), run="flight-2")
    undisturbed = TrainProcess(stored_scene(elsewhere), options, elsewhere, environment, in_flow=True)
    undisturbed.read_rest()
    assert undisturbed.steps.count(1) == 3, "two cells and their seams"
    splats = [list(Path(each.workspace).glob("stages/train/*/scene.ply")) for each in (context, elsewhere)]
    [[disturbed_splat], [splat]] = splats
    assert disturbed_splat.read_bytes() == splat.read_bytes()
    assert not list((tmp_path / "workspace" / "checkpoints").rglob("*.npz"))


def test_a_run_that_computes_anew_takes_no_others_checkpoint(tmp_path: Path, uninterrupted: bytes) -> None:
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    scene = stored_scene(context)
    options = OPTIONS.model_copy(update={"checkpoint_seconds": INTERVAL_SECONDS})
    run = TrainProcess(scene, options, context, dict(os.environ), in_flow=False)
    run.read_until(300)
    run.process.kill()
    run.read_rest()
    assert list((tmp_path / "checkpoints").glob("*/*.npz"))
    fresh = context.model_copy(update={"run": "flight-2", "fresh": True})
    gaussians = tasks.train.train_gaussians.fn(scene, options, fresh)
    assert resumed_from(gaussians, context) is None
    assert splat(gaussians, fresh) == uninterrupted
    assert not list((tmp_path / "checkpoints").glob("*/*.npz")), "what is stored needs no checkpoint any more"


def test_the_interval_is_no_part_of_the_outputs_name(tmp_path: Path) -> None:
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    scene = stored_scene(context)
    short = OPTIONS.model_copy(update={"steps": 20})
    first = tasks.train.train_gaussians.fn(scene, short, context)
    for seconds in (0, 3600):
        again = tasks.train.train_gaussians.fn(scene, short.model_copy(update={"checkpoint_seconds": seconds}), context)
        assert again.cached
        assert again.uri == first.uri
