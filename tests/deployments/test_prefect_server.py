"""Two transactions that read and then write: with Prefect's own beginnings one of them fails, with ours it waits."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration

from deployments.prefect_server import QueueingSqlite

HEAD_START_SECONDS = 0.3  # for the second transaction to get between the first one's reading and its writing


async def meet(database: AioSqliteConfiguration) -> int:
    """How much two increments that overlap have added up to."""
    engine = await database.engine()
    has_read = asyncio.Event()

    async def increment(*, first: bool) -> None:
        if not first:
            await has_read.wait()
        async with await database.session(engine) as session, database.begin_transaction(session):
            value = (await session.execute(sa.text("SELECT value FROM counter"))).scalar_one()
            if first:
                has_read.set()
                await asyncio.sleep(HEAD_START_SECONDS)
            await session.execute(sa.text(f"UPDATE counter SET value = {value + 1}"))

    async with engine.connect() as connection:
        await connection.execute(sa.text("CREATE TABLE counter (value INTEGER)"))
        await connection.execute(sa.text("INSERT INTO counter VALUES (0)"))
    await asyncio.gather(increment(first=True), increment(first=False))
    async with engine.connect() as connection:
        return int((await connection.execute(sa.text("SELECT value FROM counter"))).scalar_one())


def test_transactions_wait_for_one_another(tmp_path: Path) -> None:
    assert asyncio.run(meet(QueueingSqlite(connection_url=f"sqlite+aiosqlite:///{tmp_path}/ours.db"))) == 2


def test_prefects_own_still_need_it(tmp_path: Path) -> None:
    """When this fails, Prefect waits by itself, and deployments/prefect_server.py can go."""
    with pytest.raises(sa.exc.OperationalError, match="database is locked"):
        asyncio.run(meet(AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path}/theirs.db")))
