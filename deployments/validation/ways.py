"""The ways on which a capture of the validation goes: as those of the workspace's users do."""

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling
from pydantic import ValidationError

from deployments.infrastructure import Infrastructure
from deployments.listener.runs import DEPLOYMENT
from deployments.listener.signals import DONE, FAILED, Signal
from deployments.listener.uploads import FOLDER, READY_FILE, Ready
from deployments.validation.published import Published
from tasks.core.errors import OptionsError
from tasks.core.options import ReconstructOptions
from tasks.core.storage import LocalWorkspace, S3Workspace, Workspace, open_s3_folder
from tasks.destination import open_destination
from tasks.run_outputs import remove_run
from tasks.workspace import open_workspace

PLACE = "validation"  # below the workspace, for photos and results of validations
CANCEL_SECONDS = 120.0
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


class RunFailedError(Exception):
    """The run of the validation ended badly; the text says how."""


class Way(ABC):
    """From photos on this machine to a published result. `capture` is a name that nothing else has."""

    describes: str  # for people

    def __init__(self, store: Workspace, capture: str) -> None:
        self.store, self.capture = store, capture

    @abstractmethod
    def start(self, photos: Path, options: ReconstructOptions) -> None:
        """Bring the photos there and start the run."""

    @abstractmethod
    def ended(self) -> Published | None:
        """What came of it; None while it works. Raises RunFailedError."""

    @abstractmethod
    def waits_for(self) -> str:
        """What is waited for now, in a few words."""

    @abstractmethod
    def stop(self) -> bool:
        """End a run that took too long; False when it may go on and make more."""

    @abstractmethod
    def remove_places(self) -> None:
        """Remove photos and result."""

    def clean_up(self) -> int:
        """Remove all that was made: photos, result, the runs' folders, and their stages' outputs, which are counted."""
        self.remove_places()
        return sum(remove_run(self.store, run) for run in self.store.run_names(f"{self.capture}-"))


class ThroughListener(Way):
    """An upload with its READY.json, as S3's events and the listener know it."""

    def __init__(self, account: Infrastructure, capture: str) -> None:
        super().__init__(open_workspace(account.workspace), capture)
        self._upload = open_s3_folder(f"s3://{account.uploads_bucket}/{FOLDER}/{capture}")
        self._results = open_s3_folder(f"{account.results.rstrip('/')}/{capture}")
        self.describes = f"upload to {self._upload.uri}, then the listener"

    def start(self, photos: Path, options: ReconstructOptions) -> None:
        """As in Way; READY.json last."""
        self._upload.upload(photos, _names(photos))
        self._upload.write(READY_FILE, Ready(options=options, fresh=True).model_dump_json().encode())

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
        """As in Way. Only the listener knows the run, whose server may be out of reach from here."""
        return False

    def remove_places(self) -> None:
        """As in Way."""
        for place in (self._upload, self._results):
            place.delete([found.name for found in place.objects()])


class InWorkspace(Way):
    """Photos and result in the workspace itself, for the ways that name both to the run."""

    def __init__(self, store: Workspace, capture: str) -> None:
        super().__init__(store, capture)
        assert isinstance(store, LocalWorkspace | S3Workspace)
        self._root = store.root
        root = str(self._root) if isinstance(self._root, Path) else self._root.uri
        self.photos, self.destination = (f"{root}/{PLACE}/{capture}/{part}" for part in ("photos", "splat"))

    def bring(self, photos: Path) -> None:
        """Bring the photos into the workspace."""
        if isinstance(self._root, Path):
            shutil.copytree(photos, self.photos)
        else:
            self._root.below(f"{PLACE}/{self.capture}/photos").upload(photos, _names(photos))

    def published(self, run: str | None = None) -> Published:
        """The result of a run that has ended well."""
        place = open_destination(self.destination, self.store)
        return Published(place, place.link("index.html"), place.link("report.html"), run)

    def remove_places(self) -> None:
        """As in Way."""
        if isinstance(self._root, Path):
            shutil.rmtree(self._root / PLACE / self.capture, ignore_errors=True)
            if (self._root / PLACE).is_dir() and not any((self._root / PLACE).iterdir()):
                (self._root / PLACE).rmdir()
        else:
            place = self._root.below(f"{PLACE}/{self.capture}")
            place.delete([found.name for found in place.objects()])


class ThroughDeployment(InWorkspace):
    """A run of the deployment `reconstruct`, as the *Run* button starts one."""

    def __init__(self, client: SyncPrefectClient, workspace: str | None, capture: str) -> None:
        """Raises OptionsError when the deployment works in another workspace than `workspace`."""
        self._client = client
        self._deployment = client.read_deployment_by_name(DEPLOYMENT)
        theirs = (self._deployment.job_variables or {}).get("env", {}).get("SPACEPORT_WORKSPACE")
        if theirs is None and workspace is None:
            raise OptionsError(
                f"The deployment {DEPLOYMENT} names no workspace: name its workers' one with --workspace."
            )
        if None not in (theirs, workspace) and theirs != workspace:
            raise OptionsError(f"The deployment {DEPLOYMENT} works in {theirs}, not in {workspace}: name that one.")
        super().__init__(open_workspace(theirs or workspace or ""), capture)
        self._run: UUID | None = None
        self.describes = f"deployment {DEPLOYMENT} at {client.api_url}, workspace {theirs or workspace}"

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
        if run.state_type not in ENDED:
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
        return _until(lambda: self._read().state_type in ENDED, CANCEL_SECONDS)

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


def _names(photos: Path) -> list[str]:
    return sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file())
