"""`python -m deployments.prefect_server`: `prefect server start` with a database that loses no event.

Prefect begins most of its SQLite transactions as DEFERRED ones. One that reads and then writes fails at once, without
waiting, when another has written in between (https://sqlite.org/lang_transaction.html, SQLITE_BUSY_SNAPSHOT). The
server gives up events after four attempts, and with them what an automation should have done. IMMEDIATE transactions
queue for the right to write, for up to a minute. Prefect sometimes opens a second session before it has ended a
transaction, as to read a pool's name for an event. That one begins as Prefect has it: it would otherwise wait for its
own outer one, and every other transaction with it.

A client whose connection was lost sends again what the server has not confirmed. Prefect on SQLite cannot store a batch
of events that are all known already, nor one that holds an event twice. After five attempts it drops it, with
all that came in meanwhile. Here an event that comes again is left out.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import sqlalchemy as sa
from prefect.server.database import provide_database_interface
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.events.services import event_persister
from prefect.server.events.storage.database import write_events
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

MOST_VARIABLES = 500  # of one statement; SQLite takes 32766, older ones 999


class QueueingSqlite(AioSqliteConfiguration):
    """Every transaction takes the right to write when it begins, unless its asyncio task has it already."""

    _writers: ClassVar[set[asyncio.Task[Any] | None]] = set()

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Begin as Prefect does for transactions that are known to read before they write."""
        task = asyncio.current_task()
        if task in self._writers:
            async with super().begin_transaction(session, with_for_update) as transaction:
                yield transaction
            return
        self._writers.add(task)
        try:
            async with super().begin_transaction(session, with_for_update=True) as transaction:
                await session.connection()  # begins now, so that what is set next holds for inner sessions alone
                outer = SQLITE_BEGIN_MODE.set("DEFERRED")
                try:
                    yield transaction
                finally:
                    SQLITE_BEGIN_MODE.reset(outer)
        finally:
            self._writers.discard(task)


async def write_new_events(session: AsyncSession, events: list[ReceivedEvent]) -> None:
    """Store those events that are not stored yet, each once, all or none of them."""
    database = provide_database_interface()
    async with database.database_config.begin_transaction(session):
        new = {event.id: event for event in events}
        ids = list(new)
        for start in range(0, len(ids), MOST_VARIABLES):
            some = sa.select(database.Event.id).where(database.Event.id.in_(ids[start : start + MOST_VARIABLES]))
            for known in await session.scalars(some):
                del new[known]
        await write_events(session=session, events=list(new.values()))


def main() -> None:
    """Set the database up and hand over to Prefect's own command."""
    from prefect.cli import app

    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if url.startswith("sqlite"):
        set_database_config(QueueingSqlite(connection_url=url))
        event_persister.write_events = write_new_events  # type: ignore[attr-defined]  # what its flush calls
    sys.argv[1:] = ["server", "start", *sys.argv[1:]]
    app()


if __name__ == "__main__":
    main()
