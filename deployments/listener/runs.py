"""Runs of `reconstruct` on the Prefect server, one for each version of an upload."""

from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from deployments.every_run import every_run
from deployments.listener.uploads import Ready, Upload

DEPLOYMENT = "reconstruct/reconstruct"
TAG = "upload"
ENDS = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


class Runs:
    """What the listener asks of the Prefect server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client  # httpx's, which several threads may use
        self._deployment: UUID | None = None

    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        """The run of this version: made now, or the one that an earlier message made."""
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
            name=f"{upload.capture}-{upload.version[:8]}",  # the versions of a capture are told apart
            tags=["spaceport", TAG],
            idempotency_key=upload.identity,
        )

    def ended(self, since: datetime) -> list[FlowRun]:
        """Runs of uploads that ended after a moment, the last one first."""
        wanted = FlowRunFilter(
            tags=FlowRunFilterTags(all_=["spaceport", TAG]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ENDS))),
            end_time=FlowRunFilterEndTime(after_=since),
        )
        return every_run(self._client, FlowRunSort.END_TIME_DESC, flow_run_filter=wanted)
