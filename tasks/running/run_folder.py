"""A run's own folder in the workspace: its name, its result, and notes on the stage outputs that the run uses."""

import re
import uuid
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from coolname.data import config as coolname_lists
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from tasks.core.refs import RunContext
from tasks.core.storage import Workspace
from tasks.places.sources import capture_name
from tasks.places.workspace import open_workspace
from tasks.running.settings import settings_in_use

SPLAT_FOLDER = "splat"  # the published result, if no other destination is named
OUTPUTS_FOLDER = "outputs"  # notes of stage outputs


def context_of_run(capture: str, fresh: bool) -> RunContext:
    """Return the context of the current flow run. Its folder is named by the capture and the start of the run's id."""
    workspace = settings_in_use().absolute_workspace  # a stage's worker has another working directory
    run_id = str(flow_run.id or uuid.uuid4())
    return RunContext(workspace=workspace, run=folder_of_run(capture, run_id), fresh=fresh)


def folder_of_run(capture: str, run_id: str) -> str:
    """The name of a run's own folder."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", capture).strip("-.") or "run"
    return f"{slug}-{run_id[:8]}"


def default_destination(context: RunContext) -> str:
    """Place of the result if the user named none."""
    return f"{open_workspace(context.workspace).run_uri(context.run)}/{SPLAT_FOLDER}"


class NotedOutput(BaseModel):
    """One output of a stage."""

    model_config = ConfigDict(frozen=True)

    uri: str
    cached: bool  # it was in the workspace before the run


def note_output(store: Workspace, context: RunContext, stage: str, key: str, *, cached: bool) -> None:
    """Note that the run uses this output or is about to compute it. An earlier note of this run is kept."""
    name = f"{OUTPUTS_FOLDER}/{stage}-{key}.json"
    if cached and store.read_run_file(context.run, name) is not None:
        return  # this run computed it itself, in an earlier attempt
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
    """Remove a run's folder, and the outputs and checkpoints that it made; returns the number of outputs.

    Use it only for a run that has ended, and whose outputs no other run has reused since.
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


# Names that the two *Run* forms suggest as *Run Name*: "Sleek-Lynx", "nu6-kuchiki", "alpha-canis-majoris-void".
_FORMS = re.compile(
    r"(?:Awesome|Rustic|Small|Gorgeous|Fantastic|Sleek|Intelligent|Unbranded|Refined|Licensed|Generic|Practical"
    r"|Ergonomic|Handcrafted|Tasty|Handmade|Incredible)-[A-Z][^-]{0,5}"
    r"|(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma|tau|upsilon"
    r"|phi|chi|psi|omega)\d*-[a-z-]+"
)


def name_of_run() -> str:
    """Return the name of the current flow run: the name that a person chose, or else that of its folder."""
    given = str(flow_run.name or "")
    if given and not is_made_up(given):
        return given
    return folder_of_run(capture_name(flow_run.parameters["photos"]), str(flow_run.id))


def is_made_up(name: str) -> bool:
    """Whether Prefect generated the name: its server for an unnamed run ("papaya-tortoise"), or one of its forms."""
    words = name.split("-")
    return _FORMS.fullmatch(name) is not None or (len(words) == 2 and _vocabulary().issuperset(words))


@cache
def _vocabulary() -> frozenset[str]:
    """The words from which Prefect's server generates names."""
    lists: dict[str, Any] = dict(coolname_lists)
    return frozenset(word for part in lists.values() for word in part.get("words", ()))
