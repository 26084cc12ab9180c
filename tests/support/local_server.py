"""A Prefect server of the tests' own, brought up by `spaceport up` as a person would, with its workers.

Its stages run in the pools `spaceport-cpu` (2 at once) and `spaceport-gpu` (1 at once):

    with serving(tmp_path / "home", tmp_path / "workspace", dispatch="train", gpu_slots=2) as server:
        run = server.start({"photos": …})
        server.wait(run.id, "Completed")
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from deployments.local.access import read_secrets
from deployments.local.processes import find, log_file
from deployments.local.state import folder_of, read_state
from tests.support.engines import engines
from tests.support.own_home import without_users_servers
from tests.support.patience import STALL_SECONDS, Patience, finished, work_of

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Served:
    """A server that is up."""

    home: Path  # SPACEPORT_HOME
    workspace: Path

    @property
    def api_url(self) -> str:
        return self._state.api_url

    @property
    def ui_url(self) -> str:
        return self._state.ui_url

    @property
    def pages_url(self) -> str:
        url = self._state.plan.pages_url
        assert url is not None
        return url

    @property
    def secret(self) -> str:
        """User and password of the server's API."""
        found = read_secrets(self.home)
        assert found is not None, f"nothing was ever up in {self.home}"
        return found.api

    @property
    def access(self) -> dict[str, str]:
        """The environment of a program that uses the server as its owner."""
        return {"PREFECT_API_URL": self.api_url, "PREFECT_API_AUTH_STRING": self.secret}

    def http(self) -> httpx.Client:
        """A context manager for requests to the API as its owner."""
        user, password = self.secret.split(":")
        return httpx.Client(base_url=self.api_url, auth=(user, password), timeout=STALL_SECONDS)

    @property
    def _state(self) -> Any:
        state = read_state(self.home)
        assert state is not None, f"nothing is up in {self.home}"
        return state

    def pid(self, name: str) -> int:
        """Of the living process `server`, `worker-cpu`, `worker-gpu` or `pages`."""
        found = find(name, folder_of(self.home))
        assert found is not None, f"{name} does not run: {self.log(name)[-2000:]}"
        return found.pid

    def log(self, name: str) -> str:
        """What that process has written; the workers' logs hold their runs' output too."""
        return log_file(folder_of(self.home), name).read_text(encoding="utf-8", errors="replace")

    def spaceport(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line with this home; the exit status is the caller's to check."""
        return spaceport(self.home, *arguments)

    def client(self) -> SyncPrefectClient:
        """A context manager: `with server.client() as client`."""
        return SyncPrefectClient(self.api_url, auth_string=self.secret)

    def start(self, parameters: dict[str, Any], deployment: str = "reconstruct/reconstruct") -> FlowRun:
        """Start a run as the *Run* button does."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters)

    def wait(self, run_id: UUID, *states: str) -> FlowRun:
        """Wait until the run's state has one of these names; fails when it ends in another one, or all runs stall."""
        with self.client() as client:
            patience = Patience(f"run that is {' or '.join(states)}", lambda: self.moves(client), POLL_SECONDS)
            while True:
                run = client.read_flow_run(run_id)
                assert run.state is not None
                if run.state.name in states:
                    return run
                assert not run.state.is_final(), f"{run.name} is {run.state.name}: {run.state.message}"
                patience.wait()

    def moves(self, client: SyncPrefectClient) -> object:
        """How far the server's runs are: their states, and the work that their processes have done."""
        runs = sorted((str(run.id), str(run.state_name)) for run in client.read_flow_runs(limit=200))
        at_work = engines()
        return runs, work_of(*(at_work[run].pid for run, _ in runs if run in at_work))


def spaceport(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `spaceport …` with a home of its own and without a Prefect server from the environment."""
    kept = without_users_servers()
    environment = {**kept, "SPACEPORT_HOME": str(home), "COLUMNS": "200", **variables}
    return finished([sys.executable, "-m", "flows.cli", *arguments], env=environment, cwd=home.parent)


@contextmanager
def serving(home: Path, workspace: Path | str, **options: object) -> Iterator[Served]:
    """`spaceport up` with these options (`cpu_slots=1` is `--cpu-slots 1`), and `down` at the end."""
    home.parent.mkdir(parents=True, exist_ok=True)
    flags = [flag for name, value in options.items() for flag in (f"--{name.replace('_', '-')}", str(value))]
    up = spaceport(home, "up", "--port", "0", "--workspace", str(workspace), *flags)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield Served(home, Path(workspace))
    finally:
        down = spaceport(home, "down", "--now")
        assert down.returncode == 0, down.stdout + down.stderr
