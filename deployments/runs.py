"""Queries for any number of flow runs, and a queue of ended runs: each end is returned until it is settled."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

PAGE = 200


def every_run(client: SyncPrefectClient, sort: FlowRunSort, **filters: Any) -> list[FlowRun]:
    """Return all runs that `SyncPrefectClient.read_flow_runs` finds with these filters."""
    found: list[FlowRun] = []
    while page := client.read_flow_runs(**filters, sort=sort, limit=PAGE, offset=len(found)):
        found += page
    return found


LOOK_BACK = timedelta(days=7)  # ends during a downtime of the service
OVERLAP = timedelta(minutes=10)  # ends that the server stored later than younger ones
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 10.0, 600.0


@dataclass
class _Waiting:
    """An end that has not been settled yet."""

    run: FlowRun
    tries: int = 0
    due: float = 0.0  # on the monotonic clock


class Ends:
    """The ends of runs that have not been settled yet.

    An end is a final state, not a run: a run that is retried ends again. Each query asks for ends since the newest
    known one. It starts OVERLAP earlier until the newest one has been known for that long, so an idle service reads
    only one end again, however many there were before. The server's times are never compared with this machine's.
    """

    def __init__(
        self, read: Callable[[datetime], list[FlowRun]], first_retry_seconds: float = FIRST_RETRY_SECONDS
    ) -> None:
        """`read` returns the runs that ended after a moment."""
        self._read, self._first_retry_seconds = read, first_retry_seconds
        self._since = datetime.now(UTC) - LOOK_BACK  # never moved back, since older ends are not remembered
        self._newest, self._newest_known_at = self._since, time.monotonic()
        self._settled: set[UUID] = set()  # ids of states
        self._waiting: dict[UUID, _Waiting] = {}  # by run

    def due(self) -> Iterator[FlowRun]:
        """Yield new ends, and postponed ends that are due again. Raises the errors of `read`."""
        self._look()
        now = time.monotonic()
        yield from [waiting.run for waiting in self._waiting.values() if waiting.due <= now]

    def settle(self, run: FlowRun) -> None:
        """Mark this end as settled."""
        self._settled.add(_state_id(run))
        del self._waiting[run.id]

    def put_off(self, run: FlowRun) -> None:
        """Return this end again later, after increasing waits, until it is too old to be read."""
        waiting = self._waiting[run.id]
        waiting.due = time.monotonic() + min(self._first_retry_seconds * 2**waiting.tries, LAST_RETRY_SECONDS)
        waiting.tries += 1

    def _look(self) -> None:
        overlap = max(OVERLAP - timedelta(seconds=time.monotonic() - self._newest_known_at), timedelta(0))
        self._since = max(self._since, self._newest - overlap)
        found = self._read(self._since)
        self._settled &= {_state_id(run) for run in found}  # the others are too old to be read again
        for run in found:
            known = self._waiting.get(run.id)
            if _state_id(run) not in self._settled and (known is None or _state_id(known.run) != _state_id(run)):
                self._waiting[run.id] = _Waiting(run)
        oldest = datetime.now(UTC) - LOOK_BACK
        self._waiting = {id_: each for id_, each in self._waiting.items() if (each.run.end_time or oldest) >= oldest}
        newest = max([self._newest, *(run.end_time for run in found if run.end_time)])
        if newest > self._newest:
            self._newest, self._newest_known_at = newest, time.monotonic()


def _state_id(run: FlowRun) -> UUID:
    assert run.state is not None
    return run.state.id
