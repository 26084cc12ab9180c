"""Prefect's own server loses writes and events on SQLite; ours does not.

Of two transactions that read and then write, one fails with Prefect's own beginnings and waits with ours; one that is
begun inside another does not wait for that. Those that wait have their turns in order. Events that a client sends again
after its connection was lost make Prefect's own writing fail, and drop others with them.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from queue import Queue
from uuid import uuid4

import pytest
import sqlalchemy as sa
from prefect.server.api.server import is_client_retryable_exception
from prefect.server.database import provide_database_interface
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.server.events.schemas.events import ReceivedEvent, Resource
from prefect.server.events.services import event_persister
from prefect.server.events.storage.database import write_events
from prefect.types._datetime import now
from sqlalchemy.ext.asyncio import AsyncSession

from deployments.local import prefect_server
from deployments.local.own_origin import OwnOrigin
from deployments.local.prefect_server import QueueingSqlite, write_new_events
from deployments.local.state import folder_of
from tests.support.patience import STALL_SECONDS

HEAD_START_SECONDS = 0.3  # for a second transaction that waits in earnest: it does not read before the first one ends


async def meet(database: AioSqliteConfiguration, head_start_seconds: float) -> int:
    """The sum of two increments, of which the second reads between reading and writing of the first.

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
    """When this fails, Prefect waits by itself, and deployments/local/prefect_server.py can go."""
    with pytest.raises(sa.exc.OperationalError, match="database is locked"):
        asyncio.run(
            meet(AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path}/theirs.db"), STALL_SECONDS)
        )


def test_a_transaction_inside_another_does_not_wait_for_it(tmp_path: Path) -> None:
    """As when Prefect pauses a queue, and reads the name of its pool for the event that says so."""

    async def nested() -> list[int]:
        database = QueueingSqlite(connection_url=f"sqlite+aiosqlite:///{tmp_path}/nested.db")
        engine = await database.engine()
        async with engine.connect() as connection:
            await connection.execute(sa.text("CREATE TABLE counter (value INTEGER)"))
            await connection.execute(sa.text("INSERT INTO counter VALUES (1)"))

        async def read() -> int:
            async with await database.session(engine) as session, database.begin_transaction(session):
                return int((await session.execute(sa.text("SELECT value FROM counter"))).scalar_one())

        async def glance() -> int:  # a session without a transaction
            async with await database.session(engine) as session:
                return int((await session.execute(sa.text("SELECT value FROM counter"))).scalar_one())

        async with await database.session(engine) as outer, database.begin_transaction(outer):
            await outer.execute(sa.text("UPDATE counter SET value = 2"))
            inside = [await read(), await glance()]
            elsewhere = asyncio.create_task(read())  # another request, which waits for its turn
            await asyncio.sleep(HEAD_START_SECONDS)
        return [*inside, await elsewhere, await read(), await glance()]

    assert asyncio.run(nested()) == [1, 1, 2, 2, 2]


@asynccontextmanager
async def writing(database: QueueingSqlite) -> AsyncGenerator[AsyncSession, None]:
    async with await database.session(await database.engine()) as session, database.begin_transaction(session):
        yield session


async def waiting(database: QueueingSqlite, count: int) -> tuple[list[asyncio.Task[None]], list[int]]:
    """That many transactions, begun one after the other, and the numbers of those whose turn has come."""
    come = list[int]()

    async def write(number: int) -> None:
        async with writing(database) as session:
            come.append(number)
            await session.execute(sa.text("SELECT 1"))

    tasks = list[asyncio.Task[None]]()
    for number in range(count):
        tasks.append(asyncio.create_task(write(number)))
        await asyncio.sleep(HEAD_START_SECONDS / 10)
    return tasks, come


def test_turns_come_in_the_order_of_asking(tmp_path: Path) -> None:
    """SQLite itself has no queue: the transaction that asks at the right moment is first."""

    async def turns() -> list[int]:
        database = QueueingSqlite(connection_url=f"sqlite+aiosqlite:///{tmp_path}/turns.db")
        async with writing(database):
            tasks, come = await waiting(database, 12)
            assert not come
        await asyncio.gather(*tasks)
        return come

    assert asyncio.run(turns()) == list(range(12))


def test_those_who_wait_hold_no_connection(tmp_path: Path) -> None:
    """The one whose turn it is may need a second one, and there are fifteen."""

    async def read() -> int:
        database = QueueingSqlite(connection_url=f"sqlite+aiosqlite:///{tmp_path}/connections.db")
        async with writing(database):
            tasks, _ = await waiting(database, 20)
            async with writing(database) as inner:
                found = int((await inner.execute(sa.text("SELECT 1"))).scalar_one())
        await asyncio.gather(*tasks)
        return found

    assert asyncio.run(read()) == 1


def test_a_turn_that_never_comes_is_an_answer_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_server, "TURN_SECONDS", HEAD_START_SECONDS)

    async def wait() -> int:
        database = QueueingSqlite(connection_url=f"sqlite+aiosqlite:///{tmp_path}/stuck.db")
        async with writing(database):
            [task], come = await waiting(database, 1)
            with pytest.raises(sa.exc.OperationalError, match="database is locked") as locked:
                await task
            assert not come
        assert is_client_retryable_exception(locked.value)
        async with writing(database) as session:  # the queue moves on
            return int((await session.execute(sa.text("SELECT 1"))).scalar_one())

    assert asyncio.run(wait()) == 1


Write = Callable[..., Awaitable[None]]
A, B, C = (
    ReceivedEvent(
        id=uuid4(),
        event="prefect.flow-run.heartbeat",
        resource=Resource({"prefect.resource.id": f"prefect.flow-run.{name}"}),
        occurred=now("UTC"),
        received=now("UTC"),
    )
    for name in "abc"
)
SENT_AGAIN = [([A, B], [A, B]), ([A, B], [B, C]), ([A], [B, B, C]), ([], [A] * 1000 + [B])]


def stored(database: AioSqliteConfiguration, write: Write, *batches: list[ReceivedEvent]) -> list[tuple[str, str]]:
    """The ids of stored events and of what they happened to, after these batches have been written."""

    async def all_batches() -> list[tuple[str, str]]:
        interface = provide_database_interface()
        tables = [interface.Event.__table__, interface.EventResource.__table__]
        async with (await interface.engine()).begin() as connection:
            await connection.run_sync(interface.Base.metadata.create_all, tables=tables)
        for batch in batches:
            async with interface.session_context() as session:  # as the event persister does
                await write(session=session, events=batch)
                await session.commit()
        both = sa.select(interface.Event.id, interface.EventResource.resource_id).join(
            interface.EventResource, interface.EventResource.event_id == interface.Event.id
        )
        async with interface.session_context() as session:
            return sorted((str(event), resource) for event, resource in await session.execute(both))

    with temporary_database_config(database):
        return asyncio.run(all_batches())


@pytest.mark.parametrize(("first", "again"), SENT_AGAIN)
def test_an_event_that_comes_again_is_stored_once(
    tmp_path: Path, first: list[ReceivedEvent], again: list[ReceivedEvent]
) -> None:
    ours = QueueingSqlite(connection_url=f"sqlite+aiosqlite:///{tmp_path}/ours.db")
    wanted = {event.id: event for event in (*first, *again)}.values()
    assert stored(ours, write_new_events, first, again) == sorted(
        (str(event.id), event.resource.id) for event in wanted
    )


@pytest.mark.parametrize(("first", "again"), [([A, B], [A, B]), ([A], [B, B, C])])
def test_prefects_own_cannot_store_it(tmp_path: Path, first: list[ReceivedEvent], again: list[ReceivedEvent]) -> None:
    """When this fails, Prefect itself leaves out known events, and `write_new_events` can go."""
    theirs = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path}/theirs.db")
    with pytest.raises(sa.exc.IntegrityError):
        stored(theirs, write_events, first, again)


def test_the_server_writes_events_our_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_persister, "write_events", write_events)
    served = []
    monkeypatch.setattr(prefect_server, "create_app", lambda final: "Prefect")
    monkeypatch.setattr("uvicorn.run", lambda app, **options: served.append((app, options["host"])))
    monkeypatch.setattr(prefect_server, "set_database_config", lambda config: None)
    monkeypatch.setattr("sys.argv", ["prefect_server", "--keep", "/home"])
    kept = list[Path]()
    short = Queue[Path]()
    monkeypatch.setattr(prefect_server, "keep", lambda home, umask: kept.append(home))
    monkeypatch.setattr(prefect_server, "_keep_short", short.put)
    prefect_server.main()
    assert short.get(timeout=STALL_SECONDS) == folder_of(Path("/home"))
    assert kept == [Path("/home")]
    assert event_persister.write_events is write_new_events
    [(app, host)] = served
    assert isinstance(app, OwnOrigin), "others' pages are kept out"
    assert host == "127.0.0.1"
