"""The frame of all stage tasks: look in the workspace, else compute into a fresh folder and store it.

Computing happens in this process, or, for a stage that `Settings.dispatch` names, in a run of the stage's own
deployment, which finds the same key and leaves its output in the same place.
"""

import importlib.metadata
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from tasks.core.errors import StorageError
from tasks.core.peak_memory import PeakMemory
from tasks.core.refs import RunContext
from tasks.core.stage_code import StageCode
from tasks.core.storage import MEASUREMENTS_FILE, Manifest, Workspace, cache_key, describe_output
from tasks.places.workspace import open_workspace
from tasks.reporting.metrics import tell_stage
from tasks.running.backend import OTHER, Computing
from tasks.running.dispatch import run_elsewhere, runs_elsewhere
from tasks.running.run_outputs import note_output, noted_keys
from tasks.running.settings import settings_in_use

Measured = TypeVar("Measured", bound=BaseModel)


class StageOutput(BaseModel):
    """A stored output in this run's eyes."""

    uri: str
    digest: str
    seconds: float | None
    cost_usd: float | None
    cached: bool
    peak_memory_bytes: int | None
    code_version: str

    def as_ref_fields(self) -> dict[str, JsonValue]:
        """The fields that every Ref has."""
        return self.model_dump()


def run_stage(
    stage: str,
    code: StageCode,
    context: RunContext,
    *,
    inputs: Sequence[str],
    options: dict[str, JsonValue],
    compute: Callable[[Path], BaseModel],
    backend: Computing | None = None,
    changed: dict[str, BaseModel] | None = None,
) -> StageOutput:
    """The stage's output for these inputs and options, from the workspace when it is there.

    Args:
        stage: the stage's word.
        code: what computes the stage.
        context: the workspace, and whether what it holds counts.
        inputs: digests of what the stage reads.
        options: what the stage was asked to do; with `inputs`, `code` and `backend` it names the output.
        compute: fills the folder it is given and returns what it measured.
        backend: what computes the stage, or is expected to where it runs elsewhere; None where that changes nothing.
        changed: parameters that take the place of the task's in a run elsewhere.
    """
    store = open_workspace(context.workspace)
    key = output_key(code, inputs, options, backend)
    manifest = None if context.fresh else store.find(stage, key)
    if manifest is not None:
        note_output(store, context, stage, key, cached=True)
        return _output(store, stage, key, manifest, cached=True)
    if runs_elsewhere(stage, context):
        run_elsewhere(stage, context, changed)
        other = None if backend is None else output_key(code, inputs, options, OTHER[backend])
        return _made_elsewhere(store, context, stage, key, other)
    note_output(store, context, stage, key, cached=False)
    with store.new_output(stage, key) as folder:
        start = time.monotonic()
        with PeakMemory() as memory:
            measured = compute(folder)
        seconds = time.monotonic() - start
        (folder / MEASUREMENTS_FILE).write_text(measured.model_dump_json(indent=1), encoding="utf-8")
        manifest = describe_output(folder, stage, options, code_version(code), seconds)
        price = settings_in_use().hourly_cost_usd
        manifest = manifest.model_copy(
            update={
                "backend": backend,
                "library_versions": code.library_versions,
                "peak_memory_bytes": memory.peak_bytes,
                "cost_usd": None if price is None else price * seconds / 3600,
            }
        )
        tell_stage(
            stage,
            measured,
            seconds=seconds,
            cost_usd=manifest.cost_usd,
            peak_memory_bytes=memory.peak_bytes,
            output_bytes=manifest.total_bytes,
        )
        manifest = store.commit(folder, stage, key, manifest, replace=context.fresh)
    return _output(store, stage, key, manifest, cached=False)


def output_key(
    code: StageCode, inputs: Sequence[str], options: dict[str, JsonValue], backend: Computing | None = None
) -> str:
    """The name of the output that this code makes of these inputs and options; see `run_stage`."""
    return cache_key(inputs, options, code.version if backend is None else f"{code.version} {backend}")


def code_version(code: StageCode) -> str:
    """The code that made an output, for manifests and reports: the release, and the digest of its sources."""
    return f"{importlib.metadata.version('spaceport')}/{code.sources[:16]}"


def _made_elsewhere(store: Workspace, context: RunContext, stage: str, key: str, other: str | None) -> StageOutput:
    """The output of the stage's own run, which made it or found it in the workspace.

    `other` is its key if the backend that was not expected has computed it.
    """
    noted = noted_keys(store, context, stage)
    for made in (key, other):
        if made not in noted:
            continue
        manifest = store.find(stage, made)
        if manifest is not None:
            return _output(store, stage, made, manifest, cached=noted[made].cached)
    raise StorageError(
        f"The {stage} run ended well but {store.output_uri(stage, key)} is not there: "
        "its worker may write to another workspace, or run another version of this code."
    )


def _output(store: Workspace, stage: str, key: str, manifest: Manifest, *, cached: bool) -> StageOutput:
    return StageOutput(
        uri=store.output_uri(stage, key),
        digest=manifest.digest,
        seconds=None if cached else manifest.seconds,
        cost_usd=None if cached else manifest.cost_usd,
        cached=cached,
        peak_memory_bytes=None if cached else manifest.peak_memory_bytes,
        code_version=manifest.code_version,
    )


def open_output(uri: str, context: RunContext) -> Path:
    """A local folder with a stored output, verified. Raises StorageError."""
    return open_workspace(context.workspace).fetch(uri)


def read_measurements(uri: str, kind: type[Measured], context: RunContext) -> Measured:
    """What a stage measured when it computed the output. Raises StorageError."""
    return kind.model_validate_json(open_workspace(context.workspace).read(uri, MEASUREMENTS_FILE))
