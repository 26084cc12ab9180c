"""The frame of all stage tasks: look in the workspace, else compute into a fresh folder and store it."""

import importlib.metadata
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from prefect.client.schemas.objects import State
from pydantic import BaseModel, JsonValue

from tasks.core.errors import SpaceportError
from tasks.core.storage import Manifest, Workspace, cache_key, describe_output, verify_output

MEASUREMENTS_FILE = "measurements.json"

Measured = TypeVar("Measured", bound=BaseModel)


class StageOutput(BaseModel):
    """A stored output in this run's eyes."""

    folder: Path
    digest: str
    seconds: float | None
    cached: bool
    peak_memory_bytes: int

    def as_ref_fields(self) -> dict[str, JsonValue]:
        """The fields that every Ref has."""
        return {
            "uri": str(self.folder),
            "digest": self.digest,
            "seconds": self.seconds,
            "cached": self.cached,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def run_stage(
    stage: str,
    version: str,
    *,
    workspace: str,
    inputs: Sequence[str],
    options: dict[str, JsonValue],
    compute: Callable[[Path], BaseModel],
    fresh: bool = False,
) -> StageOutput:
    """Give the stage's output for these inputs and options, from the workspace when it is there.

    Args:
        stage: the stage's word.
        version: changes whenever the stage's code gives other results for the same input.
        workspace: root of the workspace.
        inputs: digests of what the stage reads.
        options: what the stage was asked to do; with `inputs` and `version` it names the output.
        compute: fills the folder it is given and returns what it measured.
        fresh: compute even when the output exists.
    """
    store = Workspace(workspace)
    key = cache_key(inputs, options, version)
    manifest = None if fresh else store.find(stage, key)
    if manifest is not None:
        return _output(store.output_folder(stage, key), manifest, cached=True)
    with store.new_output(stage, key) as folder:
        start = time.monotonic()
        measured = compute(folder)
        seconds = time.monotonic() - start
        (folder / MEASUREMENTS_FILE).write_text(measured.model_dump_json(indent=1), encoding="utf-8")
        code_version = f"{importlib.metadata.version('spaceport')}/{version}"
        manifest = describe_output(folder, stage, options, code_version, seconds)
        manifest = store.commit(folder, stage, key, manifest, replace=fresh)
    return _output(store.output_folder(stage, key), manifest, cached=False)


def _output(folder: Path, manifest: Manifest, *, cached: bool) -> StageOutput:
    return StageOutput(
        folder=folder,
        digest=manifest.digest,
        seconds=None if cached else manifest.seconds,
        cached=cached,
        peak_memory_bytes=peak_memory_bytes(),
    )


def peak_memory_bytes() -> int:
    """The greatest resident set so far of this process or of any child that has ended (Linux counts in KiB)."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def open_output(uri: str) -> Path:
    """The local folder of a stored output, verified. Raises StorageError."""
    folder = Path(uri)
    verify_output(folder)
    return folder


def read_measurements(uri: str, kind: type[Measured]) -> Measured:
    """What a stage measured when it computed the output."""
    return kind.model_validate_json((Path(uri) / MEASUREMENTS_FILE).read_bytes())


def can_retry(_task: object, _task_run: object, state: State[object]) -> bool:
    """Prefect's retry condition: only errors that say that a retry can help, and errors that are none of ours."""
    try:
        state.result()
    except SpaceportError as error:
        return error.retryable
    except OSError:  # network and disk
        return True
    except Exception:  # noqa: BLE001 - whatever else failed, doing it again gives the same
        return False
    return False
