"""Prefect's database that cannot be used: a damaged one is kept aside, everything else is one sentence."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from deployments.local import prefect_database
from deployments.local.prefect_database import make_ready, startup_error
from tasks.core.errors import DiskFullError, ServerError


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """One with some pages of content."""
    file = tmp_path / "prefect.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE run (name TEXT)")
        connection.executemany("INSERT INTO run VALUES (?)", [("x" * 200,)] * 2000)
        connection.commit()
    return file


def test_a_sound_one_stays_as_it_is(database: Path) -> None:
    before = database.read_bytes()
    assert make_ready(database.parent) is None
    assert database.read_bytes() == before


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_the_space_of_what_was_removed_is_given_back(
    journal: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_database, "EMPTY_BYTES", 100_000)
    full = database.stat().st_size
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("DELETE FROM run WHERE rowid > 500")
        connection.commit()
    assert database.stat().st_size == full, "SQLite itself gives nothing back"
    monkeypatch.setattr(prefect_database, "free_bytes", lambda folder: prefect_database.LEAST_FREE_BYTES)
    assert make_ready(database.parent) is None
    assert database.stat().st_size == full, "the copy would fill the disk"
    monkeypatch.undo()
    monkeypatch.setattr(prefect_database, "EMPTY_BYTES", 100_000)
    assert make_ready(database.parent) is None
    assert database.stat().st_size < full / 3
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM run").fetchone() == (500,)


def test_a_home_without_one_is_ready(tmp_path: Path) -> None:
    assert make_ready(tmp_path) is None
    (tmp_path / "prefect.db").touch()
    assert make_ready(tmp_path) is None


@pytest.mark.parametrize("start", [0, 8192], ids=["all of it", "20 pages"])
def test_a_damaged_one_is_kept_aside(database: Path, start: int) -> None:
    content = bytearray(database.read_bytes())
    content[start : start + 20 * 4096] = b"\xa5" * 20 * 4096
    database.write_bytes(content)
    says = make_ready(database.parent)
    assert says is not None
    [aside] = database.parent.glob("prefect.db.damaged-*")
    assert str(aside) in says
    assert aside.read_bytes() == bytes(content)
    assert not database.exists()
    assert make_ready(database.parent) is None


def test_a_locked_one_is_one_sentence(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_database, "LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ServerError, match=rf"locked Prefect's database {database}"):
            make_ready(database.parent)
    assert make_ready(database.parent) is None


def test_a_full_disk_is_told_first(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_database, "free_bytes", lambda folder: 6_000_000)
    with pytest.raises(DiskFullError, match=str(database.parent)):
        make_ready(database.parent)


@pytest.mark.parametrize(
    ("log", "error", "says"),
    [
        ("sqlite3.OperationalError: database or disk is full", DiskFullError, "is full"),
        ("sqlalchemy.exc.DatabaseError: database disk image is malformed", ServerError, "is damaged. Move it away"),
        ("sqlite3.OperationalError: database is locked", ServerError, "Another program"),
        ("line 1\n\nValueError: unknown revision 'abc'\n", ServerError, "line 1 / ValueError: unknown revision 'abc'"),
        ("", ServerError, "it said nothing"),
    ],
)
def test_a_server_that_did_not_start_is_one_sentence(
    log: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    found = startup_error(log, tmp_path)
    assert type(found) is error
    assert says in str(found)
    assert "\n" not in str(found)
