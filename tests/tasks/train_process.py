"""The train stage in a process of its own, to be killed.

    python -m tests.tasks.train_process SCENE OPTIONS CONTEXT [flow]

The first three are JSON. It prints a line for every step. With `flow` it runs in a Prefect flow, as everywhere but in
tests. It depends on no clock: time moves with its steps (tests/support/step_clock.py), an upload is waited for, and it
cannot be far ahead of the reader of its lines.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

import tasks.cells
import tasks.train
from tasks.core.measurements import TrainSection
from tasks.core.refs import GaussiansRef, RunContext, SceneRef
from tasks.core.training import trainer
from tasks.core.training.cells import merge, train_cell
from tasks.core.training.options import TrainOptions
from tasks.running.checkpoints import StageCheckpoints
from tasks.running.settings import read_settings_of_run
from tests.support.step_clock import StepClock

REPOSITORY = Path(__file__).parents[2]
PIPE_BYTES, LINE_BYTES = 4096, 1024  # some ten steps fit in here and in the reader's buffer: that far it is ahead


class TrainProcess:
    """One such process, as its parent sees it."""

    def __init__(
        self, scene: SceneRef, options: TrainOptions, context: RunContext, environment: dict[str, str], *, in_flow: bool
    ) -> None:
        arguments = [model.model_dump_json() for model in (scene, options, context)] + ["flow"] * in_flow
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tasks.train_process", *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            pipesize=PIPE_BYTES,
            text=True,
        )
        self.steps: list[int] = []  # that were done, as far as they are read

    def read_until(self, step: int) -> None:
        """Follow until this step is done; fails when it never is."""
        while not self.steps or self.steps[-1] < step:
            self._read(self._line())

    def read_rest(self) -> None:
        """What it has written when it has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._read(line)
        self.process.wait()

    def read_until_next(self, step: int) -> None:
        """Follow until the next training, such as that of the second cell, has done this step."""
        while len(self.steps) < 2 or self.steps[-1] > self.steps[-2]:
            self._read(self._line())
        self.read_until(step)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended early, with {self.process.wait()}"
        return line

    def _read(self, line: str) -> None:
        if line.endswith("\n") and line.startswith("step "):
            self.steps.append(int(line.split()[1]))


def main(scene: SceneRef, options: TrainOptions, context: RunContext, in_flow: bool) -> None:
    """Train, and print how far it is."""
    # Where tests run in a shell's background, Ctrl-C is ignored by all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    read_settings_of_run()
    save, clock, patch = StageCheckpoints.save, StepClock(), pytest.MonkeyPatch()

    def telling(train: Callable[..., TrainSection], *given: Any) -> TrainSection:
        *places, on_step, on_evaluation, checkpoints = given

        def both(stats: trainer.TrainingStats) -> None:
            print(f"step {stats.step}".ljust(LINE_BYTES), flush=True)
            clock.tick()
            on_step(stats)

        return train(*places, both, on_evaluation, checkpoints)

    def save_whole(self: StageCheckpoints, *state: Any) -> None:
        save(self, *state)
        if self._upload is not None:
            self._upload.join()

    clock.rule(patch)
    for module, name in ((trainer, "train"), (train_cell, "train_cell"), (merge, "merge_cells")):
        patch.setattr(module, name, partial(telling, getattr(module, name)))
    patch.setattr(StageCheckpoints, "save", save_whole)

    @flow(name="training")
    def training() -> GaussiansRef:
        return tasks.cells.train_splat(scene, options, context)

    gaussians = training() if in_flow else tasks.train.train_gaussians.fn(scene, options, context)
    print(json.dumps({"uri": gaussians.uri}), flush=True)


if __name__ == "__main__":
    main(
        SceneRef.model_validate_json(sys.argv[1]),
        TrainOptions.model_validate_json(sys.argv[2]),
        RunContext.model_validate_json(sys.argv[3]),
        sys.argv[4:] == ["flow"],
    )
