"""A stage as one object, and the code that all stages share: find the output in the workspace, or compute and store it.

A stage is computed in this process. If `Settings.dispatch` names the stage, a run of its own deployment computes it
instead, derives the same key and stores the output in the same place.

If the output was in the workspace, the task ends in Prefect's own state `Cached`. Prefect's cache policy and result
storage are not used: their record would still say "Cached" after files of the output are gone or damaged.
"""

import functools
import importlib.metadata
import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

from prefect import Flow, Task, flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed
from pydantic import BaseModel, JsonValue

from tasks.core.errors import SpaceportError, StorageError
from tasks.core.progress import Progress
from tasks.core.refs import Ref, RunContext
from tasks.core.stage_code import StageCode
from tasks.core.storage import MEASUREMENTS_FILE, Manifest, Workspace, cache_key, describe_output
from tasks.core.usage import PeakMemory
from tasks.places.workspace import open_workspace
from tasks.reporting.metrics import tell_stage
from tasks.reporting.progress import called, stage_progress
from tasks.running.at_once import results_at_once
from tasks.running.dispatch import keep_error, run_elsewhere, runs_elsewhere
from tasks.running.gpu import OTHER, Computing
from tasks.running.retries import stage_task
from tasks.running.run_folder import note_output, noted_keys
from tasks.running.settings import read_settings_of_run, settings_in_use

P = ParamSpec("P")
Made = TypeVar("Made", bound=Ref)
Measured = TypeVar("Measured", bound=BaseModel)


@dataclass(frozen=True)
class Stage(Generic[Measured]):
    """A stage: its name, the code that computes it, and what the computation measures."""

    name: str
    code: StageCode
    measures: type[Measured]

    def key(
        self, inputs: Sequence[str], options: dict[str, JsonValue] | None = None, backend: Computing | None = None
    ) -> str:
        """Return the name of the output for this code, these inputs and these options; see `run_stage`."""
        version = self.code.version if backend is None else f"{self.code.version} {backend}"
        return cache_key(inputs, options or {}, version)

    def measured(self, output: Ref, context: RunContext) -> Measured:
        """Read what the stage measured when it computed the output. Raises StorageError."""
        content = open_workspace(context.workspace).read(output.uri, MEASUREMENTS_FILE)
        return self.measures.model_validate_json(content)

    def task(self, function: Callable[P, Made]) -> "StageTask[P, Made]":
        """Decorate the stage's function, which takes its RunContext as `context` and returns a Ref."""
        return StageTask(self.name, function)

    def task_called(self, run_name: str) -> Callable[[Callable[P, Made]], "StageTask[P, Made]"]:
        """Return such a decorator for a task that a run has several of; parameters in braces tell them apart."""
        return lambda function: StageTask(self.name, function, run_name)


class StageTask(Generic[P, Made]):
    """A stage's function as a Prefect task, whose state is `Cached` when the output was in the workspace."""

    def __init__(self, name: str, function: Callable[P, Made], run_name: str | None = None) -> None:
        self.name, self.fn = name, function

        @functools.wraps(function)
        def with_state(*args: P.args, **kwargs: P.kwargs) -> Made | State[Made]:
            made = function(*args, **kwargs)
            if not made.cached:
                return made
            message = f"{made.summary}, from the workspace"
            stage_progress(called(name))(Progress(1, 1, message))
            return Completed(name="Cached", message=message, data=made)

        self.prefect: Task[P, Made | State[Made]] = stage_task(name, run_name)(with_state)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Made:
        """Run the task and return the output's Ref; raises the task's error."""
        returned = self.prefect(*args, **kwargs)
        return returned.result() if isinstance(returned, State) else returned

    def each(self, calls: Sequence[dict[str, Any]], context: RunContext) -> list[Made]:
        """Run the task with each of these arguments, and return the outputs' Refs in order.

        Runs elsewhere are all started at once, and their pool decides how many of them compute at the same time. In
        this process, where one alone uses all cores, they follow one another.
        """
        if runs_elsewhere(self.name, context):
            submit = cast("Callable[..., PrefectFuture[Made]]", self.prefect.submit)  # a State becomes its result
            return results_at_once([functools.partial(submit, **call) for call in calls])
        in_turn: Callable[..., Made] = self
        return [in_turn(**call) for call in calls]

    def as_flow(self) -> Flow[P, Made]:
        """Return a flow with the stage's name and the task's parameters, for a deployment in a work pool of its own.

        If it fails, its error is stored in the run's folder, for the run that waits for it. It uses the settings of the
        machine where it runs.
        """

        @functools.wraps(self.fn)
        def run(*args: P.args, **kwargs: P.kwargs) -> Made:
            read_settings_of_run()
            try:
                return self(*args, **kwargs)
            except SpaceportError as error:
                keep_error(error, inspect.signature(self.fn).bind(*args, **kwargs).arguments["context"])
                raise

        return flow(name=self.name)(run)


def run_stage(
    stage: Stage[Measured],
    context: RunContext,
    *,
    inputs: Sequence[str],
    options: dict[str, JsonValue] | None = None,
    compute: Callable[[Path], Measured],
    backend: Computing | None = None,
    changed: dict[str, BaseModel] | None = None,
    still_valid: Callable[[Ref], bool] = lambda _: True,
    while_computing: AbstractContextManager[None] | None = None,
) -> Ref:
    """Return the stage's output for these inputs and options, from the workspace if it is there.

    Args:
        stage: the stage.
        context: the workspace, and whether outputs in it may be used.
        inputs: digests of everything that the stage reads.
        options: options that affect the output; with `inputs`, the stage's code and `backend` they name the output.
        compute: fills the given folder and returns what it measured.
        backend: the backend that computes the stage, or is expected to if it runs elsewhere; None if all backends make
            the same output.
        changed: parameters that replace the task's in a run elsewhere.
        still_valid: whether an output in the workspace may be used, for a stage that also writes to another place.
        while_computing: entered while this process computes; waiting to enter it does not count as computing.
    """
    store = open_workspace(context.workspace)
    key = stage.key(inputs, options, backend)
    manifest = None if context.fresh else store.find(stage.name, key)
    is_replaced = context.fresh
    if manifest is not None:
        output = _ref(store, stage.name, key, manifest, cached=True)
        if still_valid(output):
            note_output(store, context, stage.name, key, cached=True)
            return output
        is_replaced = True
    if runs_elsewhere(stage.name, context):
        run_elsewhere(stage.name, context, changed)
        other = None if backend is None else stage.key(inputs, options, OTHER[backend])
        return _made_elsewhere(store, context, stage.name, key, other)
    note_output(store, context, stage.name, key, cached=False)
    with while_computing or nullcontext(), store.new_output(stage.name, key) as folder:
        manifest = _computed(stage, folder, options or {}, compute, backend)
        manifest = store.commit(folder, stage.name, key, manifest, replace=is_replaced)
    return _ref(store, stage.name, key, manifest, cached=False)


def _computed(
    stage: Stage[Measured],
    folder: Path,
    options: dict[str, JsonValue],
    compute: Callable[[Path], Measured],
    backend: Computing | None,
) -> Manifest:
    """Fill the folder, and return its manifest with time, memory and cost."""
    start = time.monotonic()
    with PeakMemory() as memory:
        measured = compute(folder)
    seconds = time.monotonic() - start
    (folder / MEASUREMENTS_FILE).write_text(measured.model_dump_json(indent=1), encoding="utf-8")
    price = settings_in_use().hourly_cost_usd
    manifest = describe_output(folder, stage.name, options, code_version(stage.code), seconds).model_copy(
        update={
            "backend": backend,
            "library_versions": stage.code.library_versions,
            "peak_memory_bytes": memory.peak_bytes,
            "cost_usd": None if price is None else price * seconds / 3600,
        }
    )
    tell_stage(
        stage.name,
        measured,
        seconds=seconds,
        cost_usd=manifest.cost_usd,
        peak_memory_bytes=memory.peak_bytes,
        output_bytes=manifest.total_bytes,
    )
    return manifest


def code_version(code: StageCode) -> str:
    """Return the version of a stage's code for manifests and reports: the release, and the digest of its sources."""
    return f"{importlib.metadata.version('spaceport')}/{code.sources[:16]}"


def _made_elsewhere(store: Workspace, context: RunContext, stage: str, key: str, other: str | None) -> Ref:
    """Return the output of the stage's own run, which computed it or found it in the workspace.

    `other` is the output's key if the other backend than expected has computed it.
    """
    noted = noted_keys(store, context, stage)
    for made in (key, other):
        if made not in noted:
            continue
        manifest = store.find(stage, made)
        if manifest is not None:
            return _ref(store, stage, made, manifest, cached=noted[made].cached)
    raise StorageError(
        f"The {stage} run ended well but {store.output_uri(stage, key)} is not there: "
        "its worker may write to another workspace, or run another version of this code."
    )


def _ref(store: Workspace, stage: str, key: str, manifest: Manifest, *, cached: bool) -> Ref:
    """Return the stored output, with what this run spent on it."""
    return Ref(
        uri=store.output_uri(stage, key),
        digest=manifest.digest,
        seconds=None if cached else manifest.seconds,
        cost_usd=None if cached else manifest.cost_usd,
        cached=cached,
        peak_memory_bytes=None if cached else manifest.peak_memory_bytes,
        code_version=manifest.code_version,
    )


def open_output(output: Ref, context: RunContext) -> Path:
    """Return a local folder with a stored output, verified. Raises StorageError."""
    return open_workspace(context.workspace).fetch(output.uri)
