"""Training in cells: what is computed again and what is not, retries, dispatch, and what the whole is said to cost."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import TerminationSignal
from prefect.states import Completed, Crashed, Failed, State
from pydantic import BaseModel

from tasks.cells import CELLS_PICTURE, divided_scene, measured_training, plan_cells, train_cell, train_splat
from tasks.core.errors import OutOfMemoryError, StageError
from tasks.core.measurements import CellPlan
from tasks.core.refs import GaussiansRef, RunContext, SceneRef
from tasks.core.training import memory
from tasks.core.training.options import TrainOptions
from tasks.places.workspace import open_workspace
from tasks.running import dispatch
from tasks.running.stage import open_output, run_stage
from tasks.sfm import SFM
from tasks.train import CELLS, TRAIN, train_gaussians
from tests.core.training.scenes import made_scene
from tests.tasks.stand_in_cells import GAUSSIANS, StandIns

OPTIONS = TrainOptions(steps=40, max_gaussians=4000, max_image_size=96, backend="cpu", cells=4)


class Nothing(BaseModel):
    pass


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(workspace=str(tmp_path / "workspace"), run="flight-1")


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> StandIns:
    return StandIns(monkeypatch)


@pytest.fixture
def scene(context: RunContext) -> SceneRef:
    return stored_scene(context)


def stored_scene(context: RunContext, changed_photo: int | None = None) -> SceneRef:
    """Thirty-two photos, eight for each of four cells; one of them may have other bytes."""

    def compute(folder: Path) -> Nothing:
        made_scene(folder, cameras=32)
        if changed_photo is not None:
            photos = sorted((folder / "images").iterdir())
            shutil.copy2(photos[(changed_photo + 1) % len(photos)], photos[changed_photo])
        return Nothing()

    output = run_stage(SFM, context, inputs=[str(changed_photo)], compute=compute)
    return SceneRef.of(output, capture="made", cameras=32, points=150)


def trained(scene: SceneRef, context: RunContext, options: TrainOptions = OPTIONS) -> GaussiansRef:
    """Train in a flow of its own, as `reconstruct` does."""
    made: list[GaussiansRef] = []

    @flow
    def reconstruct() -> None:
        made.append(train_splat(scene, options, context))

    reconstruct()
    return made[0]


def splat(gaussians: GaussiansRef, context: RunContext) -> bytes:
    return (open_output(gaussians, context) / "scene.ply").read_bytes()


@pytest.mark.usefixtures("prefect_server")
def test_what_is_there_is_not_computed_again(cells: StandIns, scene: SceneRef, context: RunContext) -> None:
    first = trained(scene, context)
    assert (cells.divided, cells.trained, cells.merged) == (1, [0, 1, 2, 3], 1)
    assert first.count == 4 * GAUSSIANS
    assert not first.cached
    cells.forget()
    again = trained(scene, context)
    assert (cells.divided, cells.trained, cells.merged) == (0, [], 0)
    assert again.cached
    assert (again.uri, again.digest, again.seconds, again.cost_usd) == (first.uri, first.digest, None, None)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("photo", "of_cells"), [(12, [1]), (15, [1, 2])], ids=["inside", "at the seam"])
def test_a_changed_photo_trains_the_cells_that_see_it_and_merges(
    photo: int, of_cells: list[int], cells: StandIns, context: RunContext
) -> None:
    first = trained(stored_scene(context), context)
    cells.forget()
    changed = trained(stored_scene(context, photo), context)
    assert (cells.divided, cells.trained, cells.merged) == (1, of_cells, 1)
    assert [cell.number for cell in changed.cells if not cell.cached] == of_cells
    assert not changed.cached
    assert splat(changed, context) != splat(first, context)


@pytest.mark.usefixtures("prefect_server")
def test_a_lost_cell_is_trained_alone_and_gives_the_same_splat(
    cells: StandIns, scene: SceneRef, context: RunContext
) -> None:
    first = trained(scene, context)
    shutil.rmtree(first.cells[2].uri)
    cells.forget()
    again = trained(scene, context)
    assert (cells.divided, cells.trained, cells.merged) == (0, [2], 0)
    assert again.digest == first.digest
    assert not again.cached
    assert again.seconds == again.cells[2].seconds, "nothing else took time"
    reported = measured_training(again, context).cells
    assert [cell.cached for cell in reported] == [True, True, False, True]
    assert [cell.seconds for cell in reported] == [None, None, again.cells[2].seconds, None]


@pytest.mark.usefixtures("prefect_server")
def test_fresh_computes_all_of_it(cells: StandIns, scene: SceneRef, context: RunContext) -> None:
    first = trained(scene, context)
    cells.forget()
    again = trained(scene, context.model_copy(update={"fresh": True}))
    assert (cells.divided, cells.trained, cells.merged) == (1, [0, 1, 2, 3], 1)
    assert again.digest == first.digest


@pytest.mark.usefixtures("prefect_server")
def test_one_part_is_what_it_was(cells: StandIns, scene: SceneRef, context: RunContext) -> None:
    options = OPTIONS.model_copy(update={"cells": 1})
    whole = trained(scene, context, options)
    assert (cells.divided, cells.trained, cells.merged) == (0, [], 0)
    naming = options.model_dump(mode="json", exclude={"checkpoint_seconds", "max_photos_in_memory", "backend", "cells"})
    assert Path(whole.uri).name == TRAIN.key([scene.digest], naming, "cpu")
    assert whole.plan is None
    assert whole.cells == ()
    auto = train_gaussians.fn(scene, OPTIONS.model_copy(update={"cells": None}), context)
    assert auto.cached


@pytest.mark.usefixtures("prefect_server")
def test_every_cell_has_its_own_options_task_log_and_retries(
    cells: StandIns, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_cell.prefect, "retry_delay_seconds", 0.0)
    failed: list[int] = []

    def out_of_reach(number: int, options: TrainOptions) -> None:
        if number == 1 and not failed:
            failed.append(number)
            raise ConnectionError("the store is away")

    cells.before_training = out_of_reach
    gaussians = trained(scene, context)
    assert cells.trained == [0, 1, 1, 2, 3]
    assert {(options.steps, options.max_gaussians) for options in cells.options} == {(10, 1000)}
    store = open_workspace(context.workspace)
    logs = {name for name in store.run_files(context.run) if name.startswith("logs/")}
    assert logs == {f"logs/{name}.log" for name in ("cell-00", "cell-01", "cell-02", "cell-03", "cells", "train")}
    kept = (store.read_run_file(context.run, "logs/cell-01.log") or b"").decode()
    assert "the store is away" in kept
    assert "cell-00" not in kept
    assert [cell.number for cell in gaussians.cells] == [0, 1, 2, 3]


@pytest.mark.usefixtures("prefect_server")
def test_memory_that_does_not_suffice_for_one_cell_makes_that_one_smaller(
    cells: StandIns, scene: SceneRef, context: RunContext
) -> None:
    def limited(number: int, options: TrainOptions) -> None:
        if number == 3 and options.max_gaussians == 4000:
            np.ones(2**44)

    cells.before_training = limited
    gaussians = trained(scene, context, OPTIONS.model_copy(update={"max_gaussians": 16_000}))
    assert [options.max_gaussians for options in cells.options] == [4000, 4000, 4000, 4000, 2000]
    [said] = gaussians.degradations
    assert said.startswith("cell-03: Memory did not suffice")


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("photos_help", [True, False])
def test_joining_puts_photos_out_of_memory_and_keeps_all_gaussians(
    photos_help: bool, cells: StandIns, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "FEW_PHOTOS_IN_MEMORY", 2)
    monkeypatch.setattr(memory, "LARGE_PART", 0.0)
    tried: list[tuple[int, int | None]] = []

    def limited(options: TrainOptions) -> None:
        tried.append((options.max_gaussians, options.max_photos_in_memory))
        if options.max_photos_in_memory is None or not photos_help:
            np.ones(2**44)

    cells.before_merging = limited
    if photos_help:
        assert trained(scene, context).degradations == ()
    else:
        with pytest.raises(OutOfMemoryError):
            trained(scene, context)
    assert tried == [(4000, None), (4000, 2)]


@pytest.mark.usefixtures("prefect_server")
def test_the_whole_costs_what_its_parts_cost(
    cells: StandIns, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACEPORT_HOURLY_COST_USD", "3600")
    gaussians = trained(scene, context)
    joined = open_workspace(context.workspace).find("train", Path(gaussians.uri).name)
    assert joined is not None
    assert gaussians.plan is not None
    parts = [gaussians.plan.seconds, *(cell.seconds for cell in gaussians.cells), joined.seconds]
    assert gaussians.seconds == pytest.approx(sum(part or 0 for part in parts))
    assert gaussians.cost_usd == pytest.approx(gaussians.seconds)
    peaks = [joined.peak_memory_bytes or 0, *(cell.peak_memory_bytes or 0 for cell in gaussians.cells)]
    assert gaussians.peak_memory_bytes == max([gaussians.plan.peak_memory_bytes or 0, *peaks])
    measured = TRAIN.measured(gaussians, context)
    assert [(cell.number, cell.views, cell.ring_views, cell.psnr_db) for cell in measured.cells] == [
        (0, 8, 0, 20.0),
        (1, 9, 1, 21.0),
        (2, 9, 1, 22.0),
        (3, 9, 1, 23.0),
    ]
    assert measured.seam_psnr_db == 24.8
    assert measured.decisions == ("4 cells.",)


@pytest.mark.usefixtures("prefect_server")
def test_the_plan_is_a_picture_of_the_run(cells: StandIns, scene: SceneRef, context: RunContext) -> None:
    gaussians = trained(scene, context)
    assert gaussians.plan is not None
    picture = Path(context.workspace) / "runs" / context.run / CELLS_PICTURE
    assert picture.read_bytes().startswith(b"\x89PNG")
    divided = divided_scene(gaussians.plan, context)
    assert divided.count == 4
    assert [divided.cell_of_camera[f"{number:03}.png"] for number in (0, 7, 8, 31)] == [0, 0, 1, 3]
    assert np.bincount(divided.owners).tolist() == [38, 37, 38, 37]


class Pool:
    """In place of a Prefect server with a pool of so many places: it computes the runs that it is asked for."""

    def __init__(self, patch: pytest.MonkeyPatch, context: RunContext, places: int) -> None:
        self.asked: list[str] = []
        self.runs: dict[str, FlowRun] = {}
        self.most_at_once = self._at_once = 0
        self.ends: Callable[[str, dict[str, Any]], State[Any] | None] = lambda name, parameters: None
        self._places, self._lock = threading.Semaphore(places), threading.Lock()
        self._context = context
        self._given: dict[Any, tuple[str, dict[str, Any]]] = {}
        patch.setenv("SPACEPORT_DISPATCH", "train")
        patch.setattr(dispatch, "run_deployment", self._run)
        patch.setattr(dispatch, "_wait", self._wait)

    def _run(self, name: str, *, parameters: dict[str, Any], idempotency_key: str, **rest: Any) -> FlowRun:
        if idempotency_key not in self.runs:
            self.asked.append(rest["flow_run_name"])
            run = FlowRun(id=uuid4(), flow_id=uuid4(), name=rest["flow_run_name"])
            self.runs[idempotency_key] = run
            self._given[run.id] = name, parameters
        return self.runs[idempotency_key]

    def _wait(self, stage: str, child_id: Any, expected_seconds: float | None) -> FlowRun:
        name, parameters = self._given[child_id]
        with self._places:
            with self._lock:
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
            time.sleep(0.2)  # so that those who may be at work together are
            [run] = [run for run in self.runs.values() if run.id == child_id]
            state = self.ends(run.name, parameters) or self._computed(name, parameters)
            with self._lock:
                self._at_once -= 1
        ended = run.model_copy(update={"state": state, "state_type": state.type})
        self.runs = {key: ended if each.id == child_id else each for key, each in self.runs.items()}
        return ended

    def _computed(self, name: str, parameters: dict[str, Any]) -> State[Any]:
        task = {"cells/cells": plan_cells, "cell/cell": train_cell, "train/train": train_gaussians}[name]
        read = task.as_flow().validate_parameters(parameters)
        with self._lock:
            task.fn(**read)
        return Completed()


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("places", [1, 2])
def test_cells_are_runs_of_their_own_as_many_at_once_as_the_pool_has(
    places: int, cells: StandIns, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = trained(scene, context)
    elsewhere = context.model_copy(update={"workspace": str(tmp_path / "theirs"), "run": "flight-2"})
    pool = Pool(monkeypatch, elsewhere, places)
    cells.forget()
    scene = stored_scene(elsewhere)
    expecting = elsewhere.model_copy(update={"expected_seconds": {"train": 100.0}})
    there = trained(scene, expecting)
    assert pool.asked[0] == "flight-2 cells"
    assert sorted(pool.asked[1:5]) == [f"flight-2 cell-0{number}" for number in range(4)]
    assert pool.asked[5:] == ["flight-2 train"]
    assert pool.most_at_once == places
    assert sorted(cells.trained) == [0, 1, 2, 3]
    assert splat(there, elsewhere) == splat(here, context)
    assert not there.cached
    assert all(cell.seconds is not None for cell in there.cells)


@pytest.mark.usefixtures("prefect_server")
def test_a_cells_run_that_dies_is_tried_again_alone(
    cells: StandIns, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_cell.prefect, "retry_delay_seconds", 0.0)
    pool = Pool(monkeypatch, context, 2)
    pool.ends = lambda name, parameters: (
        Crashed(message="exited with status code: -9") if name == "flight-1 cell-02" else None
    )
    trained(scene, context)
    assert sorted(cells.trained) == [0, 1, 2, 3]
    assert pool.asked.count("flight-1 cell-02 (2)") == 1
    assert len(pool.asked) == 1 + 5 + 1


@pytest.mark.usefixtures("prefect_server")
def test_a_cell_that_fails_lets_the_others_end_and_fails_the_run(
    cells: StandIns, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(monkeypatch, context, 2)
    pool.ends = lambda name, parameters: Failed(message="no light") if name == "flight-1 cell-00" else None
    with pytest.raises(StageError, match="The cell-00 run failed: no light"):
        trained(scene, context)
    assert sorted(cells.trained) == [1, 2, 3]
    assert cells.merged == 0
    cells.forget()
    pool.ends = lambda name, parameters: None
    trained(scene, context)
    assert cells.trained == [0]


@pytest.mark.usefixtures("prefect_server")
def test_an_end_signal_ends_the_waits_for_all_cells(
    cells: StandIns, scene: SceneRef, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread gets it while the cells' threads wait for runs that would take hours."""
    pool = Pool(monkeypatch, context, 4)
    waiting = threading.Barrier(5)
    ended: list[str] = []
    wait = pool._wait

    def long(stage: str, child_id: Any, expected_seconds: float | None) -> FlowRun:
        if stage != "cell":
            return wait(stage, child_id, expected_seconds)
        waiting.wait()
        try:
            dispatch.pause(3600.0, time.sleep)
        except TerminationSignal:
            ended.append(stage)
            raise
        raise AssertionError("it waited for an hour")

    monkeypatch.setattr(dispatch, "_wait", long)

    def send() -> None:
        waiting.wait()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(TerminationSignal):
            trained(scene, context)
    finally:
        sender.join()
        signal.signal(signal.SIGTERM, before)
    assert ended == ["cell"] * 4


@pytest.mark.usefixtures("prefect_server")
def test_real_cells_of_a_small_scene(context: RunContext) -> None:
    """No stand-ins: a lost cell is trained to the same bytes."""
    options = OPTIONS.model_copy(update={"cells": 2, "max_gaussians": 900, "sh_degree": 1, "early_stop": False})
    scene = stored_scene(context)
    first = trained(scene, context, options)
    assert [cell.number for cell in first.cells] == [0, 1]
    measured = TRAIN.measured(first, context)
    assert measured.seam_psnr_db is not None
    assert [cell.steps for cell in measured.cells] == [cell.steps for cell in planned(first, context)]
    lost = first.cells[1]
    assert (Path(lost.uri) / "scene.ply").is_file()
    shutil.rmtree(lost.uri)
    again = trained(scene, context, options)
    assert again.cells[1].digest == lost.digest
    assert [cell.cached for cell in again.cells] == [True, False]
    assert again.digest == first.digest
    of_seams = round(0.04 * options.steps) + round(0.08 * options.steps)  # with those of the held-out photos
    assert measured.steps == sum(cell.steps for cell in measured.cells) + of_seams
    whole = trained(scene, context, options.model_copy(update={"max_prune_loss_db": 0.0}))
    assert [cell.cached for cell in whole.cells] == [False, False]  # each cell is pruned by itself


def planned(gaussians: GaussiansRef, context: RunContext) -> tuple[CellPlan, ...]:
    assert gaussians.plan is not None
    return CELLS.measured(gaussians.plan, context).cells
