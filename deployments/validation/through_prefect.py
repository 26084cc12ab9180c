"""Validation through a Prefect server: by an upload to an AWS account, or by a run of the deployment."""

import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling
from pydantic import ValidationError

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.listener.runs import DEPLOYMENT, ENDS
from deployments.listener.signals import Signal
from deployments.listener.uploads import DONE, FAILED, FOLDER, READY_FILE, places_start, ready_json
from deployments.validation.ways import PLACE, InWorkspace, Published, RunFailedError, Way, names_below
from tasks.core.errors import OptionsError
from tasks.core.options import ReconstructOptions
from tasks.core.storage import open_s3_folder
from tasks.places.destination import open_destination
from tasks.places.workspace import open_workspace


class ThroughListener(Way):
    """Uploads photos and READY.json, so that S3's events and the listener start the run."""

    def __init__(self, account: Infrastructure, capture: str) -> None:
        super().__init__(open_workspace(account.workspace), capture)
        self._upload = open_s3_folder(f"s3://{account.uploads_bucket}/{FOLDER}/{capture}")
        self._results = open_s3_folder(account.results)
        self.describes = f"upload to {self._upload.uri}, then the listener"

    def start(self, photos: Path, options: ReconstructOptions) -> None:
        """As in Way; READY.json last."""
        self._upload.upload(photos, names_below(photos))
        self._upload.write(READY_FILE, ready_json(options, fresh=True))

    def ended(self) -> Published | None:
        """As in Way, by the signal beside the upload."""
        for name in (DONE, FAILED):
            found = self._upload.read(name)
            if found is None:
                continue
            try:
                signal = Signal.model_validate_json(found[0])
            except ValidationError as error:
                raise RunFailedError(f"{name} is no signal: {error.errors()[0]['msg']}") from error
            if name == FAILED or signal.results is None or signal.page is None or signal.report is None:
                raise RunFailedError(f"{name} says: {signal.error or 'nothing of a result'}")
            return Published(open_destination(signal.results, self.store), signal.page, signal.report, signal.run)
        return None

    def waits_for(self) -> str:
        """As in Way."""
        return f"{DONE} or {FAILED} beside the upload"

    def stop(self) -> bool:
        """As in Way. Only the listener knows the run, and its server may not be reachable from here."""
        return False

    def remove_places(self) -> None:
        """As in Way."""
        starts = places_start(self.capture)  # unique, because the capture's name is made for this validation
        results = [self._results.below(name) for name in self._results.folders() if name.startswith(starts)]
        for place in (self._upload, *results):
            place.delete([found.name for found in place.objects()])


CANCEL_SECONDS = 120.0


class ThroughDeployment(InWorkspace):
    """Runs the deployment `reconstruct`, like the *Run* button."""

    def __init__(self, client: SyncPrefectClient, workspace: str | None, capture: str) -> None:
        """Choose the deployment's workspace. Raises OptionsError if it is not `workspace`."""
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
        """Return the workspace that the deployment's pool writes into the environment of its runs."""
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
        """As in Way: cancels the run and waits until it has ended."""
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
