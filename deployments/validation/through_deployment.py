"""The way of a Prefect server: a run of the deployment."""

import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling

from deployments.listener.runs import DEPLOYMENT, ENDS
from deployments.validation.published import Published
from deployments.validation.ways import PLACE, InWorkspace, RunFailedError
from tasks.core.errors import OptionsError
from tasks.core.options import ReconstructOptions
from tasks.places.workspace import open_workspace

CANCEL_SECONDS = 120.0


class ThroughDeployment(InWorkspace):
    """A run of the deployment `reconstruct`, as the *Run* button starts one."""

    def __init__(self, client: SyncPrefectClient, workspace: str | None, capture: str) -> None:
        """Raises OptionsError when the deployment works in another workspace than `workspace`."""
        self._client = client
        self._deployment = client.read_deployment_by_name(DEPLOYMENT)
        theirs = self._told_workspace()
        if theirs is None and workspace is None:
            raise OptionsError(
                f"The deployment {DEPLOYMENT} names no workspace: name its workers' one with --workspace."
            )
        if None not in (theirs, workspace) and theirs != workspace:
            raise OptionsError(f"The deployment {DEPLOYMENT} works in {theirs}, not in {workspace}: name that one.")
        super().__init__(open_workspace(theirs or workspace or ""), capture)
        self._run: UUID | None = None
        self.describes = f"deployment {DEPLOYMENT} at {client.api_url}, workspace {theirs or workspace}"

    def _told_workspace(self) -> str | None:
        """The workspace that the deployment's pool writes into the environment of its runs."""
        pool = self._deployment.work_pool_name
        template = {} if pool is None else self._client.read_work_pool(pool).base_job_template
        told: str | None = template.get("job_configuration", {}).get("env", {}).get("SPACEPORT_WORKSPACE")
        return told

    def start(self, photos: Path, options: ReconstructOptions) -> None:
        """As in Way."""
        self.bring(photos)
        run = self._client.create_flow_run_from_deployment(
            self._deployment.id,
            parameters={
                "photos": self.photos,
                "destination": self.destination,
                "options": options.model_dump(mode="json"),
                "fresh": True,
            },
            name=self.capture,
            tags=["spaceport", PLACE],
        )
        self._run = run.id

    def ended(self) -> Published | None:
        """As in Way."""
        run = self._read()
        if run.state_type not in ENDS:
            return None
        if run.state_type != StateType.COMPLETED:
            raise RunFailedError(f"{run.state_name}: {(run.state.message if run.state else None) or 'no reason known'}")
        return self.published(str(run.id))

    def waits_for(self) -> str:
        """As in Way."""
        return f"the run, which is {self._read().state_name}"

    def stop(self) -> bool:
        """As in Way: cancelled, and waited for."""
        if self._run is None:
            return True
        self._client.set_flow_run_state(self._run, Cancelling(message="The validation took too long."))
        return _until(lambda: self._read().state_type in ENDS, CANCEL_SECONDS)

    def _read(self) -> FlowRun:
        assert self._run is not None
        return self._client.read_flow_run(self._run)


def _until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True
