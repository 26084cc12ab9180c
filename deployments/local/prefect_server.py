"""`python -m deployments.local.prefect_server`: Prefect's server, for this user alone, whose database loses no event.

Only its own pages can use it (own_origin.py). Runs can only choose variables that pools allow (checked_runs.py).
With `--embedded` it belongs to the command that started it, and ends with that command, however it ends. With `--keep`
it restarts workers that have died (keeper.py).

Prefect begins most of its SQLite transactions as DEFERRED. Such a transaction, if it reads and then writes, fails
without waiting if another one has written in between (https://sqlite.org/lang_transaction.html, SQLITE_BUSY_SNAPSHOT).
The server gives up events after four attempts, and with them the actions of automations. IMMEDIATE transactions wait
for the right to write, for up to a minute.

SQLite has no queue for waiting transactions: each asks again after up to 100 ms, and a busy server has kept some
waiting for 40 s while later ones went first. Each waiting transaction also holds one of the fifteen connections. So
transactions take turns here, in the order of their arrival, before they have a connection.

Prefect sometimes opens a second session before a transaction has ended, for example to read a pool's name for an event.
The second session begins as Prefect has it. Otherwise it would wait for its own outer transaction and block all others.

A client whose connection was lost sends unconfirmed events again. On SQLite, Prefect cannot store a batch of events
that are all known already, or a batch with the same event twice. After five attempts it drops the batch, and everything
that has arrived since. Here an event that arrives again is left out.
"""

import argparse
import asyncio
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
import uvicorn
from prefect.server.api.server import create_app
from prefect.server.database import provide_database_interface
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.events.services import event_persister
from prefect.server.events.storage.database import write_events
from prefect.server.services.db_vacuum import schedule_orphan_vacuum_tasks, schedule_vacuum_tasks
from prefect.server.services.perpetual_services import get_perpetual_services
from prefect.server.services.repossessor import monitor_expired_leases
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
)
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from deployments.local.checked_runs import CheckedRuns
from deployments.local.keeper import keep
from deployments.local.own_origin import OwnOrigin
from deployments.local.processes import shorten_logs
from deployments.local.state import PAGES, SERVER, WORKERS, folder_of

PATIENCE_SECONDS = 5.0  # for a clean end
TURN_SECONDS = 60.0  # to wait for the right to write; Prefect's own limit for SQLite
LOGS_SECONDS = 60.0  # between two looks at the logs
MOST_VARIABLES = 500  # of one statement; SQLite takes 32766, older ones 999


class QueueingSqlite(AioSqliteConfiguration):
    """Makes every transaction wait for its turn to write before it begins, unless its asyncio task has the turn."""

    def __init__(self, connection_url: str) -> None:
        super().__init__(connection_url)
        self._turns = WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]()  # Prefect has an engine for each
        self._writers = set[asyncio.Task[Any] | None]()  # whose turn it is

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Begin as Prefect does for transactions that are known to read before they write.

        Raises sqlalchemy.exc.OperationalError, as for a locked database, if there is no turn within TURN_SECONDS.
        """
        task = asyncio.current_task()
        if task in self._writers:
            async with super().begin_transaction(session, with_for_update) as transaction:
                yield transaction
            return
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await turn.acquire()
        except TimeoutError as error:
            locked = sqlite3.OperationalError("database is locked")  # what Prefect answers with 503, as SQLite's own
            raise sa.exc.OperationalError("BEGIN IMMEDIATE", None, locked) from error
        self._writers.add(task)
        try:
            async with super().begin_transaction(session, with_for_update=True) as transaction:
                await session.connection()  # begins now, so that the next setting applies only to inner sessions
                outer = SQLITE_BEGIN_MODE.set("DEFERRED")
                try:
                    yield transaction
                finally:
                    SQLITE_BEGIN_MODE.reset(outer)
        finally:
            self._writers.discard(task)
            turn.release()


async def write_new_events(session: AsyncSession, events: list[ReceivedEvent]) -> None:
    """Store the new ones among these events, each once; either all of them or none."""
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
    """Set up the database and serve, at PREFECT_SERVER_API_HOST and …_PORT or on the inherited socket."""
    parser = argparse.ArgumentParser(description="Prefect's server for this machine alone.")
    parser.add_argument("--host", default=PREFECT_SERVER_API_HOST.value())
    parser.add_argument("--port", type=int, default=PREFECT_SERVER_API_PORT.value())
    parser.add_argument("--embedded", type=int, metavar="FD", help="the socket to listen at; ends when stdin does")
    parser.add_argument("--keep", type=Path, metavar="HOME", help="start its workers and pages again, bound their logs")
    arguments = parser.parse_args()
    umask = os.umask(0o077)  # the database belongs to its owner
    if arguments.keep is not None:
        keep(arguments.keep, umask)
        threading.Thread(target=_keep_short, args=[folder_of(arguments.keep)], daemon=True).start()
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if url.startswith("sqlite"):
        set_database_config(QueueingSqlite(connection_url=url))
        event_persister.write_events = write_new_events  # type: ignore[attr-defined]  # what its flush calls
    if arguments.embedded is None:
        app = OwnOrigin(CheckedRuns(create_app(final=True)), arguments.port)
        uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")
        return
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _clean_up_here_too()
    listener = socket.socket(fileno=arguments.embedded)
    app = OwnOrigin(CheckedRuns(create_app(ephemeral=True, final=True)), listener.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


def _clean_up_here_too() -> None:
    """Let an embedded server remove old runs, and free slots of concurrency limits whose processes have died.

    An embedded server of Prefect itself only removes events.
    """
    for service in get_perpetual_services():
        if service.function in (schedule_vacuum_tasks, schedule_orphan_vacuum_tasks, monitor_expired_leases):
            service.run_in_ephemeral = True


def _keep_short(folder: Path) -> None:
    """Bound the logs of all processes of `spaceport up`: the workers' hold every line of their runs."""
    while True:
        shorten_logs((SERVER, PAGES, *WORKERS), folder)
        time.sleep(LOGS_SECONDS)


def _end_with_parent() -> None:
    """End this process when its parent has died. Only the parent has the other end of stdin."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
