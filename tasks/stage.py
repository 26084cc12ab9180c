"""The frame of all stage tasks: look in the workspace, else compute into a fresh folder and store it.

Computing happens in this process, or, for a stage that `Settings.dispatch` names, in a run of the stage's own
deployment, which finds the same key and leaves its output in the same place.
"""

import importlib.metadata
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, JsonValue

from tasks.core.errors import StorageError
from tasks.core.refs import RunContext
from tasks.core.settings import Settings
from tasks.core.storage import MEASUREMENTS_FILE, Manifest, Workspace, cache_key, describe_output
from tasks.dispatch import run_elsewhere, runs_elsewhere
from tasks.metrics import tell_stage
from tasks.run_outputs import note_output
from tasks.workspace import open_workspace

Measured = TypeVar("Measured", bound=BaseModel)


class StageOutput(BaseModel):
    """A stored output in this run's eyes."""

    uri: str
    digest: str
    seconds: float | None
    cost_usd: float | None
    cached: bool
    peak_memory_bytes: int | None

    def as_ref_fields(self) -> dict[str, JsonValue]:
        """The fields that every Ref has."""
        return self.model_dump()


def run_stage(
    stage: str,
    version: str,
    context: RunContext,
    *,
    inputs: Sequence[str],
    options: dict[str, JsonValue],
    compute: Callable[[Path], BaseModel],
    changed: dict[str, BaseModel] | None = None,
) -> StageOutput:
    """Give the stage's output for these inputs and options, from the workspace when it is there.

    Args:
        stage: the stage's word.
        version: changes whenever the stage's code gives other results for the same input.
        context: the workspace, and whether what it holds counts.
        inputs: digests of what the stage reads.
        options: what the stage was asked to do; with `inputs` and `version` it names the output.
        compute: fills the folder it is given and returns what it measured.
        changed: parameters of the task that this call does otherwise, for a run elsewhere.
    """
    store = open_workspace(context.workspace)
    key = cache_key(inputs, options, version)
    manifest = None if context.fresh else store.find(stage, key)
    note_output(store, context, stage, key, cached=manifest is not None)
    if manifest is not None:
        return _output(store, stage, key, manifest, cached=True)
    if runs_elsewhere(stage, context):
        run_elsewhere(stage, context, changed)
        manifest = store.find(stage, key)
        if manifest is None:
            raise StorageError(
                f"The {stage} run ended well but {store.output_uri(stage, key)} is not there: "
                "its worker may write to another workspace, or run another version of this code."
            )
        return _output(store, stage, key, manifest, cached=False)
    with store.new_output(stage, key) as folder:
        start = time.monotonic()
        measured = compute(folder)
        seconds = time.monotonic() - start
        (folder / MEASUREMENTS_FILE).write_text(measured.model_dump_json(indent=1), encoding="utf-8")
        code_version = f"{importlib.metadata.version('spaceport')}/{version}"
        manifest = describe_output(folder, stage, options, code_version, seconds)
        price = Settings.from_environment().hourly_cost_usd
        manifest = manifest.model_copy(
            update={
                "peak_memory_bytes": peak_memory_bytes(),
                "cost_usd": None if price is None else price * seconds / 3600,
            }
        )
        tell_stage(
            stage,
            measured,
            seconds=seconds,
            cost_usd=manifest.cost_usd,
            peak_memory_bytes=peak_memory_bytes(),
            output_bytes=manifest.total_bytes,
        )
        manifest = store.commit(folder, stage, key, manifest, replace=context.fresh)
    return _output(store, stage, key, manifest, cached=False)


def _output(store: Workspace, stage: str, key: str, manifest: Manifest, *, cached: bool) -> StageOutput:
    return StageOutput(
        uri=store.output_uri(stage, key),
        digest=manifest.digest,
        seconds=None if cached else manifest.seconds,
        cost_usd=None if cached else manifest.cost_usd,
        cached=cached,
        peak_memory_bytes=None if cached else manifest.peak_memory_bytes,
    )


def peak_memory_bytes() -> int:
    """The greatest resident set so far of this process or of any child that has ended (Linux counts in KiB)."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def open_output(uri: str, context: RunContext) -> Path:
    """A local folder with a stored output, verified. Raises StorageError."""
    return open_workspace(context.workspace).fetch(uri)


def read_measurements(uri: str, kind: type[Measured], context: RunContext) -> Measured:
    """What a stage measured when it computed the output. Raises StorageError."""
    return kind.model_validate_json(open_workspace(context.workspace).read(uri, MEASUREMENTS_FILE))
