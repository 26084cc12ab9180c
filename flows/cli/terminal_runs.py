"""Runs started in this machine's terminals, so that those whose process was killed can be marked as crashed.

    <home>/terminal-runs/<flow run id>.json     the process of a run, for as long as it lives

Runs of deployments need none of this: their workers watch them.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import UUID

import psutil
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from pydantic import ValidationError

from deployments.local.processes import Detached
from tasks.core.paths import private_folder, write_private

P = ParamSpec("P")
R = TypeVar("R")

GONE = "The process of this run ended without a word; what was finished is in the workspace."


def known_here(flow: Flow[P, R], home: Path) -> Flow[P, R]:
    """The flow, whose runs in this process are recorded while they last."""

    def record(flow: Flow[P, R], flow_run: FlowRun, state: State) -> None:
        this = Detached.of(str(flow_run.id), os.getpid())
        folder = _folder(home)
        private_folder(folder)
        write_private(folder / f"{flow_run.id}.json", this.model_dump_json().encode())

    def forget(flow: Flow[P, R], flow_run: FlowRun, state: State) -> None:
        (_folder(home) / f"{flow_run.id}.json").unlink(missing_ok=True)

    return flow.with_options(
        on_running=[record], on_completion=[forget], on_failure=[forget], on_cancellation=[forget], on_crashed=[forget]
    )


def is_alive(home: Path, run: UUID) -> bool:
    """Whether the run's process is one of this machine and lives."""
    return any(id_ == run and process is not None for id_, process, _ in _records(home))


def end_abandoned(client: SyncPrefectClient, home: Path) -> list[str]:
    """Mark runs as crashed whose process is gone. Returns their names."""
    ended = []
    for id_, process, file in _records(home):
        if process is not None:
            continue
        with suppress(ObjectNotFound):  # of another server, or of a database that was moved aside
            run = client.read_flow_run(id_)
            if run.state is None or not run.state.is_final():
                client.set_flow_run_state(id_, Crashed(message=GONE), force=True)
                ended.append(run.name)
        file.unlink(missing_ok=True)
    return ended


def _records(home: Path) -> Iterator[tuple[UUID, psutil.Process | None, Path]]:
    for file in sorted(_folder(home).glob("*.json")):
        try:
            recorded = Detached.model_validate_json(file.read_bytes())
            yield UUID(recorded.name), recorded.process(), file
        except (ValidationError, ValueError):
            file.unlink(missing_ok=True)
        except OSError:  # its run has ended meanwhile, or the disk fails for a moment
            continue


def _folder(home: Path) -> Path:
    return home / "terminal-runs"
