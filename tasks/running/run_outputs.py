"""Which stage outputs a run is made of, kept in its own folder; and a run's removal with what it alone has made."""

from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict

from tasks.core.refs import RunContext
from tasks.core.storage import Workspace

OUTPUTS_FOLDER = "outputs"


class NotedOutput(BaseModel):
    """One output of a stage."""

    model_config = ConfigDict(frozen=True)

    uri: str
    cached: bool  # it was in the workspace before the run


def note_output(store: Workspace, context: RunContext, stage: str, key: str, *, cached: bool) -> None:
    """Note that the run has this output, or is about to compute it. An earlier note of this run stays."""
    name = f"{OUTPUTS_FOLDER}/{stage}-{key}.json"
    if cached and store.read_run_file(context.run, name) is not None:
        return  # computed by this run itself, in an attempt before this one
    noted = NotedOutput(uri=store.output_uri(stage, key), cached=cached)
    store.write_run_file(context.run, name, noted.model_dump_json().encode())


def noted_keys(store: Workspace, context: RunContext, stage: str) -> dict[str, NotedOutput]:
    """Notes on a stage's outputs in this run, by their keys."""
    found: dict[str, NotedOutput] = {}
    prefix = f"{OUTPUTS_FOLDER}/{stage}-"
    for name in store.run_files(context.run):
        content = store.read_run_file(context.run, name) if name.startswith(prefix) else None
        if content is not None:
            found[name.removeprefix(prefix).removesuffix(".json")] = NotedOutput.model_validate_json(content)
    return found


def remove_run(store: Workspace, run: str) -> int:
    """Remove a run's folder, and the outputs and checkpoints that it made; returns how many outputs.

    Only for a run that has ended, and whose outputs no other run has taken up meanwhile.
    """
    removed = 0
    for name in store.run_files(run):
        content = store.read_run_file(run, name) if name.startswith(f"{OUTPUTS_FOLDER}/") else None
        if content is None:
            continue
        noted = NotedOutput.model_validate_json(content)
        if noted.cached:
            continue
        store.remove_output(noted.uri)
        store.remove_checkpoints(PurePosixPath(noted.uri).name)
        removed += 1
    store.remove_run(run)
    return removed
