"""Check Prefect's SQLite database before the server starts, because Prefect itself takes minutes to report errors."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tasks.core.errors import ServerError, SpaceportError
from tasks.core.storage.disk import disk_full, free_bytes

NAME = "prefect.db"
COMPANIONS = ("", "-wal", "-shm", "-journal")  # https://sqlite.org/tempfiles.html
LEAST_FREE_BYTES = 32 * 2**20  # a starting server writes some megabytes
LOCK_SECONDS = 10.0  # other servers only write for moments
EMPTY_BYTES = 64 * 2**20  # of empty pages, which SQLite reuses but never returns by itself
WHOLE_CHECK_BYTES = 256 * 2**20  # of larger ones only the list of tables is read, to save time


def make_ready(prefect_home: Path) -> str | None:
    """Check that the database in `prefect_home` can be used, and return its unused space to the disk.

    Returns a sentence if a damaged database was moved aside.

    Raises:
        DiskFullError: its disk has no room.
        ServerError: another program has locked it, or it cannot be read or moved.
    """
    if free_bytes(prefect_home) < LEAST_FREE_BYTES:
        raise disk_full(prefect_home, LEAST_FREE_BYTES)
    database = prefect_home / NAME
    if not database.exists() or database.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(database, timeout=LOCK_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            _look(connection, database.stat().st_size)
            _give_back(connection, prefect_home)
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            return _move_aside(database, str(error))
        raise _refused(database, error) from error
    return None


def _look(connection: sqlite3.Connection, size: int) -> None:
    """Raise sqlite3.DatabaseError for visible damage."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if size <= WHOLE_CHECK_BYTES:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(f"malformed: {found[0]}")


def _give_back(connection: sqlite3.Connection, prefect_home: Path) -> None:
    """Rewrite a file that is mostly empty, for example after many old runs were removed.

    The time depends on the size of the content, so a file with much content stays as it is. While another server
    writes, the file is left for the next time.
    """
    page_size, pages, empty = (
        connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_size", "page_count", "freelist_count")
    )
    full_bytes = (pages - empty) * page_size
    if empty * page_size < max(EMPTY_BYTES, full_bytes) or full_bytes > WHOLE_CHECK_BYTES:
        return
    if free_bytes(prefect_home) < LEAST_FREE_BYTES + 2 * full_bytes:  # the copy, and the log of its writing
        return
    try:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return any(word in str(error) for word in ("malformed", "not a database"))


def _refused(database: Path, error: sqlite3.DatabaseError) -> SpaceportError:
    text = str(error)
    if "full" in text:
        return disk_full(database.parent)
    if "locked" in text:
        return ServerError(
            f"Another program has locked Prefect's database {database} for more than {LOCK_SECONDS:.0f} s; end it, or "
            "name another state folder with SPACEPORT_HOME."
        )
    return ServerError(f"Prefect's database {database} cannot be used: {text}.")


def _move_aside(database: Path, why: str) -> str:
    aside = database.with_name(f"{database.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        for suffix in COMPANIONS:
            part = database.with_name(database.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise ServerError(
            f"Prefect's database {database} is damaged ({why}) and cannot be moved ({error.strerror})."
        ) from error
    return (
        f"Prefect's database was damaged ({why}); it is now {aside}, and a new one is made. It had the list of earlier "
        "runs; results and stage outputs are not affected."
    )


def startup_error(log: str, prefect_home: Path) -> SpaceportError:
    """Return the error for a server that ended during its start, from its output."""
    database = prefect_home / NAME
    if "database or disk is full" in log or "No space left" in log:
        return disk_full(prefect_home)
    if "malformed" in log or "file is not a database" in log:
        return ServerError(
            f"Prefect's database {database} is damaged. Move it away, and a new one is made; results and stage outputs "
            "are not affected."
        )
    if "database is locked" in log:
        return ServerError(f"Another program has locked Prefect's database {database}; end it and try again.")
    lines = [line.strip() for line in log.strip().splitlines() if line.strip()]
    return ServerError(f"Prefect's server ended while it started: {' / '.join(lines[-3:]) or 'it said nothing'}")
