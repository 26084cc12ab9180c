"""Catching a stage in the middle of its work, as seen from outside: its process, and the folder that it fills."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun

from tests.support.engines import engines
from tests.support.local_server import Served
from tests.support.patience import T, eventually, work_of

POLL_SECONDS = 0.02  # the shortest stage takes half a second
OPTIONS: dict[str, Any] = {"steps": 250, "max_gaussians": 8000, "max_image_size": 240}


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
            ids = {str(run.id) for run in self.stage_runs(stage)}
            return next((process for run_id, process in engines().items() if run_id in ids), None)

        # The process is known seconds before it has imported what it works with. From then on the server is not asked
        # any more: on a busy machine a short stage would end while it answers.
        caught = self.eventually(process, f"process of {stage}")
        eventually(lambda: self.partial_folders(stage), f"{stage} at work", lambda: work_of(caught.pid), POLL_SECONDS)
        return caught

    def eventually(self, look: Callable[[], T | None], what: str) -> T:
        """The first true answer of `look`, for as long as the server's runs move."""
        with self.server.client() as client:
            return eventually(look, what, lambda: self.server.moves(client), POLL_SECONDS)

    def partial_folders(self, stage: str) -> list[Path]:
        """What a stage is filling at the moment."""
        workspace = self.server.workspace
        if stage == "publish":
            return list((workspace / "runs").glob(f"*-{self.tag}/splat/.partial-*"))
        return list((workspace / "stages" / stage).glob(".*.partial"))

    def wait(self, *states: str) -> FlowRun:
        return self.server.wait(self.id, *states)

    def states(self, stage: str) -> list[str]:
        """How the stage's own runs stand, oldest first."""
        return [run.state_name or "" for run in self.stage_runs(stage)]

    @property
    def page(self) -> Path:
        [page] = (self.server.workspace / "runs").glob(f"*-{self.tag}/splat/index.html")
        return page
