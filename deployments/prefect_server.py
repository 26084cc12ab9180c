"""`python -m deployments.prefect_server`: `prefect server start` with a database whose transactions queue.

Prefect begins most of its SQLite transactions as DEFERRED ones. One that reads and then writes fails at once, without
waiting, when another has written in between (https://sqlite.org/lang_transaction.html, SQLITE_BUSY_SNAPSHOT). The
server gives up events after four attempts, and with them what an automation should have done. IMMEDIATE transactions
queue for the right to write, for up to a minute.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class QueueingSqlite(AioSqliteConfiguration):
    """Every transaction takes the right to write when it begins."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """Begin as Prefect does for transactions that are known to read before they write."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def main() -> None:
    """Set the database up and hand over to Prefect's own command."""
    from prefect.cli import app

    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if url.startswith("sqlite"):
        set_database_config(QueueingSqlite(connection_url=url))
    sys.argv[1:] = ["server", "start", *sys.argv[1:]]
    app()


if __name__ == "__main__":
    main()
