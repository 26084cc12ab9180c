"""A run's own folder in the workspace: what people look at."""

import re
import uuid

from prefect.runtime import flow_run

from tasks.core.refs import RunContext
from tasks.places.workspace import open_workspace
from tasks.running.settings import settings_in_use

SPLAT_FOLDER = "splat"  # the published result, where no other destination is named


def context_of_run(capture: str, fresh: bool) -> RunContext:
    """The context of the current flow run. Its folder has the capture's name and the start of the run's id."""
    workspace = settings_in_use().absolute_workspace  # a stage's worker has another working directory
    run_id = str(flow_run.id or uuid.uuid4())
    return RunContext(workspace=workspace, run=folder_of_run(capture, run_id), fresh=fresh)


def folder_of_run(capture: str, run_id: str) -> str:
    """The name of a run's own folder."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", capture).strip("-.") or "run"
    return f"{slug}-{run_id[:8]}"


def default_destination(context: RunContext) -> str:
    """Where the result goes when the person who started the run named no place."""
    return f"{open_workspace(context.workspace).run_uri(context.run)}/{SPLAT_FOLDER}"
