"""Runs of `reconstruct` on the Prefect server, one per version of an upload."""

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from deployments.listener.uploads import Ready, Upload
from deployments.runs import every_run

DEPLOYMENT = "reconstruct/reconstruct"
TAG, FRESH_TAG = "upload", "fresh"
NAME_CHARACTERS = 100  # of the capture's
ENDS = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
LIVING = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED)


class Runs:
    """The listener's requests to the Prefect server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client  # httpx's, which several threads may use
        self._deployment: UUID | None = None

    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        """Return the run of this version, which is created unless an earlier message has done so."""
        parameters: dict[str, Any] = {
            "photos": upload.photos,
            "destination": destination,
            "options": ready.options.model_dump(mode="json"),
            "fresh": ready.fresh,
        }
        if self._deployment is None:
            self._deployment = self._client.read_deployment_by_name(DEPLOYMENT).id
        return self._client.create_flow_run_from_deployment(
            self._deployment,
            parameters=parameters,
            name=f"{upload.capture[:NAME_CHARACTERS]}-{upload.version[:8]}",  # distinguishes versions of a capture
            tags=["spaceport", TAG, upload.tag, *([FRESH_TAG] if ready.fresh else [])],
            idempotency_key=upload.identity,
        )

    def others(self, upload: Upload) -> list[FlowRun]:
        """Runs of other versions of the same capture that have not ended."""
        living = FlowRunFilter(
            tags=FlowRunFilterTags(all_=["spaceport", TAG, upload.tag]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(LIVING))),
        )
        found = every_run(self._client, FlowRunSort.ID_DESC, flow_run_filter=living)
        return [run for run in found if run.idempotency_key != upload.identity]

    def cancel(self, run: FlowRun) -> None:
        """Cancel the run of a version that was replaced or removed. Does nothing if it has ended or was deleted."""
        if run.state_type not in LIVING:
            return
        with suppress(ObjectNotFound):
            self._client.set_flow_run_state(run.id, Cancelling(message="Its upload was replaced or removed."))

    def fresh_since(self, upload: Upload, since: datetime) -> int:
        """Return the number of other uploads' runs since a moment that compute everything anew."""
        wanted = FlowRunFilter(
            tags=FlowRunFilterTags(all_=["spaceport", TAG, FRESH_TAG]),
            expected_start_time=FlowRunFilterExpectedStartTime(after_=since),
        )
        found = every_run(self._client, FlowRunSort.ID_DESC, flow_run_filter=wanted)
        return sum(run.idempotency_key != upload.identity for run in found)

    def ended(self, since: datetime) -> list[FlowRun]:
        """Return the runs of uploads that ended after a moment, the latest first."""
        wanted = FlowRunFilter(
            tags=FlowRunFilterTags(all_=["spaceport", TAG]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ENDS))),
            end_time=FlowRunFilterEndTime(after_=since),
        )
        return every_run(self._client, FlowRunSort.END_TIME_DESC, flow_run_filter=wanted)
