"""A stage as one object, and what all stages share: find the output in the workspace, or compute and store it.

Computing happens in this process, or, for a stage that `Settings.dispatch` names, in a run of the stage's own
deployment, which finds the same key and stores its output in the same place.

A task whose output was in the workspace ends in Prefect's own state `Cached`. Its cache policy and result storage are
not used: they would keep a record next to the output that still says "Cached" when files of it are gone or damaged.
"""

import functools
import importlib.metadata
import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

from prefect import Flow, Task, flow
from prefect.client.schemas.objects import State
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
from tasks.reporting.progress import stage_progress
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
        """The name of the output that this code makes of these inputs and options; see `run_stage`."""
        version = self.code.version if backend is None else f"{self.code.version} {backend}"
        return cache_key(inputs, options or {}, version)

    def measured(self, output: Ref, context: RunContext) -> Measured:
        """What the stage measured when it computed the output. Raises StorageError."""
        content = open_workspace(context.workspace).read(output.uri, MEASUREMENTS_FILE)
        return self.measures.model_validate_json(content)

    def task(self, function: Callable[P, Made]) -> "StageTask[P, Made]":
        """Decorate the function that asks for the stage's output; it takes its RunContext as `context`."""
        return StageTask(self.name, function)


class StageTask(Generic[P, Made]):
    """A stage's function as a Prefect task, whose state is `Cached` when the output was in the workspace."""

    def __init__(self, name: str, function: Callable[P, Made]) -> None:
        self.name, self.fn = name, function

        @functools.wraps(function)
        def with_state(*args: P.args, **kwargs: P.kwargs) -> Made | State[Made]:
            made = function(*args, **kwargs)
            if not made.cached:
                return made
            message = f"{made.summary}, from the workspace"
            stage_progress(name)(Progress(1, 1, message))
            return Completed(name="Cached", message=message, data=made)

        self.prefect: Task[P, Made | State[Made]] = stage_task(name)(with_state)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Made:
        """Run the task and return the output's Ref; raises what the task failed with."""
        returned = self.prefect(*args, **kwargs)
        return returned.result() if isinstance(returned, State) else returned

    def as_flow(self) -> Flow[P, Made]:
        """A flow of the stage's name and the task's parameters, for a deployment in a work pool of its own.

        What it fails with is kept in the run's folder, where the run that waits for it finds it. Settings are those of
        the machine where it runs.
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
    """The stage's output for these inputs and options, from the workspace when it is there.

    Args:
        stage: what is to be computed.
        context: the workspace, and whether what it holds counts.
        inputs: digests of what the stage reads.
        options: what the stage was asked to do; with `inputs`, the stage's code and `backend` they name the output.
        compute: fills the folder it is given and returns what it measured.
        backend: what computes the stage, or is expected to where it runs elsewhere; None where that changes nothing.
        changed: parameters that replace the task's in a run elsewhere.
        still_valid: whether an output in the workspace counts, for a stage that also writes to another place.
        while_computing: held while this process computes; waiting for it does not count as computing.
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
    """Fill the folder, and describe it with what filling it took."""
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
    """The code that made an output, for manifests and reports: the release, and the digest of its sources."""
    return f"{importlib.metadata.version('spaceport')}/{code.sources[:16]}"


def _made_elsewhere(store: Workspace, context: RunContext, stage: str, key: str, other: str | None) -> Ref:
    """The output of the stage's own run, which computed it or found it in the workspace.

    `other` is its key if the backend that was not expected has computed it.
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
    """The stored output, and what this run spent on it."""
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
    """A local folder with a stored output, verified. Raises StorageError."""
    return open_workspace(context.workspace).fetch(output.uri)
