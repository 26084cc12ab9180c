"""The way of an account: uploads, events, listener."""

from pathlib import Path

from pydantic import ValidationError

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.listener.ready import ready_json
from deployments.listener.signals import Signal
from deployments.listener.uploads import DONE, FAILED, FOLDER, READY_FILE, places_start
from deployments.validation.published import Published
from deployments.validation.ways import RunFailedError, Way, names_below
from tasks.core.options import ReconstructOptions
from tasks.core.storage import open_s3_folder
from tasks.places.destination import open_destination
from tasks.places.workspace import open_workspace


class ThroughListener(Way):
    """An upload with its READY.json, as S3's events and the listener know it."""

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
        """As in Way. Only the listener knows the run, whose server may be out of reach from here."""
        return False

    def remove_places(self) -> None:
        """As in Way."""
        starts = places_start(self.capture)  # no other capture's: its name is made for this validation
        results = [self._results.below(name) for name in self._results.folders() if name.startswith(starts)]
        for place in (self._upload, *results):
            place.delete([found.name for found in place.objects()])
