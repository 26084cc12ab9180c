"""Two transactions that read and then write: with Prefect's own beginnings one of them fails, with ours it waits."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration

from deployments.prefect_server import QueueingSqlite
from tests.patience import STALL_SECONDS

HEAD_START_SECONDS = 0.3  # for a second transaction that waits in earnest: it does not read before the first one ends


async def meet(database: AioSqliteConfiguration, head_start_seconds: float) -> int:
    """How much two increments have added up to, the second of which reads between reading and writing of the first.

    One that does not read is waited for no longer than `head_start_seconds`.
    """
    engine = await database.engine()
    first_has_read, second_has_read = asyncio.Event(), asyncio.Event()

    async def increment(*, first: bool) -> None:
        if not first:
            await first_has_read.wait()
        async with await database.session(engine) as session, database.begin_transaction(session):
            value = (await session.execute(sa.text("SELECT value FROM counter"))).scalar_one()
            if first:
                first_has_read.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(second_has_read.wait(), head_start_seconds)
            else:
                second_has_read.set()
            await session.execute(sa.text(f"UPDATE counter SET value = {value + 1}"))

    async with engine.connect() as connection:
        await connection.execute(sa.text("CREATE TABLE counter (value INTEGER)"))
        await connection.execute(sa.text("INSERT INTO counter VALUES (0)"))
    await asyncio.gather(increment(first=True), increment(first=False))
    async with engine.connect() as connection:
        return int((await connection.execute(sa.text("SELECT value FROM counter"))).scalar_one())


def test_transactions_wait_for_one_another(tmp_path: Path) -> None:
    assert (
        asyncio.run(meet(QueueingSqlite(connection_url=f"sqlite+aiosqlite:///{tmp_path}/ours.db"), HEAD_START_SECONDS))
        == 2
    )


def test_prefects_own_still_need_it(tmp_path: Path) -> None:
    """When this fails, Prefect waits by itself, and deployments/prefect_server.py can go."""
    with pytest.raises(sa.exc.OperationalError, match="database is locked"):
        asyncio.run(
            meet(AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path}/theirs.db"), STALL_SECONDS)
        )
