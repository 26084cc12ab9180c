"""Stand-ins for the Prefect server, the buckets and the queue where they have to fail or to wait."""

import threading
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
from botocore.exceptions import ClientError
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Completed, State

from deployments.listener.messages import Message, Messages
from deployments.listener.runs import Runs
from deployments.listener.signals import Places, Signal
from deployments.listener.uploads import Ready, Upload


def denied(operation: str) -> ClientError:
    """S3's or SQS's 403."""
    return ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, operation)


class Slow(Runs):
    """A Prefect server that is away, and then takes its time."""

    def __init__(self, away: int, seconds: float) -> None:
        self.asked = 0
        self._away, self._seconds = away, seconds

    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        self.asked += 1
        if self.asked <= self._away:
            raise httpx.ConnectError("no server")
        time.sleep(self._seconds)
        return FlowRun(flow_id=UUID(int=0), name=upload.capture)

    def others(self, upload: Upload) -> list[FlowRun]:
        return []

    def fresh_since(self, upload: Upload, since: datetime) -> int:
        return 0

    def ended(self, since: datetime) -> list[FlowRun]:
        return []


class Broken(Slow):
    """A fault of ours whenever a run is to start."""

    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        raise ValueError("a fault of ours, with a secret")


class Ended(Slow):
    """A server on which the runs of some uploads have completed."""

    def __init__(self, uploads: list[Upload]) -> None:
        super().__init__(0, 0)
        self.runs = [ended_run(upload, Completed()) for upload in uploads]

    def ended(self, since: datetime) -> list[FlowRun]:
        return self.runs


class Remembering(Slow):
    """A server that keeps the runs it has made, and those that were cancelled."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.made: dict[str, FlowRun] = {}  # by idempotency key
        self.ready: dict[str, Ready] = {}
        self.cancelled: list[str] = []
        self._lock = threading.Lock()

    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        with self._lock:
            self.ready[upload.identity] = ready
            made = FlowRun(
                flow_id=UUID(int=0),
                name=upload.capture,
                idempotency_key=upload.identity,
                state_type=StateType.RUNNING,
                parameters={"destination": destination},
                tags=[upload.tag],
            )
            return self.made.setdefault(upload.identity, made)

    def others(self, upload: Upload) -> list[FlowRun]:
        with self._lock:
            return [run for key, run in self.made.items() if upload.tag in run.tags and key != upload.identity]

    def cancel(self, run: FlowRun) -> None:
        self.cancelled.append(run.idempotency_key or "")

    def fresh_since(self, upload: Upload, since: datetime) -> int:
        return sum(ready.fresh for key, ready in self.ready.items() if key != upload.identity)


def ended_run(upload: Upload, state: State[Any], run: UUID | None = None, **changed: Any) -> FlowRun:
    """A run that is in this final state since now."""
    return FlowRun(
        id=run or uuid4(),
        flow_id=UUID(int=0),
        idempotency_key=upload.identity,
        state=state,
        state_type=state.type,
        state_name=state.name,
        end_time=datetime.now(UTC),
        **changed,
    )


class Refusing(Places):
    """Buckets that refuse what concerns one upload."""

    def __init__(self, places: Places, refused: Upload) -> None:
        self.__dict__.update(places.__dict__)
        self.refused: Upload | None = refused

    def announce(self, upload: Upload, name: str, signal: Signal) -> None:
        if upload == self.refused:
            raise denied("PutObject")
        super().announce(upload, name, signal)


class Unsettled(Messages):
    """A queue that takes nothing back: receipts have expired."""

    def _set_visibility(self, message: Message, seconds: int) -> None:
        raise denied("ChangeMessageVisibility")

    def done(self, message: Message) -> None:
        raise denied("DeleteMessage")

    def put_aside(self, message: Message, reason: str) -> None:
        raise denied("DeleteMessage")
