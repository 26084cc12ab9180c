"""Catching a stage in the middle of its work, as seen from outside: its process, and the folder that it fills."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun

from tests.local_server import PATIENCE_SECONDS, Served

STAGES = ("photos", "sfm", "train", "compress", "publish")
POLL_SECONDS = 0.02  # the shortest stage takes half a second
OPTIONS: dict[str, Any] = {"steps": 250, "max_gaussians": 8000, "max_image_size": 240}

T = TypeVar("T")


@dataclass(frozen=True)
class Reconstruction:
    """A run of `reconstruct` on a server whose stages all run by themselves."""

    server: Served
    id: UUID

    @classmethod
    def start(
        cls,
        server: Served,
        photos: Path,
        *,
        train: dict[str, Any] | None = None,
        compress: dict[str, Any] | None = None,
        fresh: bool = False,
    ) -> "Reconstruction":
        """Press *Run*. What is not asked for differently comes from the workspace, if a test before this one ran it."""
        options = {"preset": "draft", "train": {**OPTIONS, **(train or {})}, "compress": compress or {}}
        return cls(server, server.start({"photos": str(photos), "options": options, "fresh": fresh}).id)

    @property
    def tag(self) -> str:
        return str(self.id)[:8]

    def stage_runs(self, stage: str) -> list[FlowRun]:
        """The stages' own runs, oldest first."""
        with self.server.client() as client:
            runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[stage])), limit=200)
        ours = [run for run in runs if any(tag.endswith(self.tag) for tag in run.tags)]
        return sorted(ours, key=lambda run: run.created or run.expected_start_time)

    def caught(self, stage: str) -> psutil.Process:
        """The process of the stage's own run, once it fills its output's folder."""

        def process() -> psutil.Process | None:
            if not self.partial_folders(stage):
                return None
            ids = {str(run.id) for run in self.stage_runs(stage)}
            return next((process for run_id, process in engines().items() if run_id in ids), None)

        return eventually(process, f"{stage} at work")

    def partial_folders(self, stage: str) -> list[Path]:
        """What a stage is filling at the moment."""
        workspace = self.server.workspace
        if stage == "publish":
            return list((workspace / "runs").glob(f"*-{self.tag}/splat/.partial-*"))
        return list((workspace / "stages" / stage).glob(".*.partial"))

    def wait(self, *states: str, timeout: float = PATIENCE_SECONDS) -> FlowRun:
        return self.server.wait(self.id, *states, timeout=timeout)

    def states(self, stage: str) -> list[str]:
        """How the stage's own runs stand, oldest first."""
        return [run.state_name or "" for run in self.stage_runs(stage)]

    @property
    def page(self) -> Path:
        [page] = (self.server.workspace / "runs").glob(f"*-{self.tag}/splat/index.html")
        return page


def engines() -> dict[str, psutil.Process]:
    """The processes that execute flow runs, by the run's id."""
    found = {}
    for process in psutil.process_iter():
        try:
            if "prefect.engine" in process.cmdline():
                found[process.environ().get("PREFECT__FLOW_RUN_ID", "")] = process
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def eventually(look: Callable[[], T | None], what: str, timeout: float = PATIENCE_SECONDS) -> T:
    """What `look` gives as soon as that is something."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"no {what} after {timeout:.0f} s"
        time.sleep(POLL_SECONDS)
