"""Features and matches of a run that was ended, kept for the next one: checked before use, dropped when they fail.

The place is named by the stage's cache key, so other photos, options, code or libraries do not find them. Keeping them
is a convenience: a place that cannot be written or read costs a warning and never the reconstruction.
"""

import logging
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from tasks.core.errors import SpaceportError
from tasks.core.sfm.job import DATABASE_FILE
from tasks.core.storage.workspace import CheckpointPlace

logger = logging.getLogger(__name__)

TABLES = {"cameras", "images", "keypoints", "descriptors", "matches", "two_view_geometries"}


def keep(database: Path, place: CheckpointPlace) -> None:
    """Move a finished copy of the database to the place; a place that cannot take it is a warning."""
    try:
        with place.scratch() as scratch:
            place.put(Path(shutil.move(database, scratch / DATABASE_FILE)))
    except (SpaceportError, OSError) as error:
        database.unlink(missing_ok=True)
        logger.warning("features and matches could not be kept for a later run (%s)", error)


def take(place: CheckpointPlace, target: Path) -> bool:
    """Copy the kept database to `target` if there is one that is whole; one that is damaged is removed."""
    try:
        if DATABASE_FILE not in place.names():
            return False
        shutil.copyfile(place.get(DATABASE_FILE, target.parent), target)
    except (SpaceportError, OSError) as error:
        target.unlink(missing_ok=True)
        logger.warning("features kept from an earlier run could not be read (%s)", error)
        return False
    found = damage(target)
    if found is not None:
        target.unlink()
        drop(place, found)
    return found is None


def drop(place: CheckpointPlace, reason: str) -> None:
    """Remove the kept database, with a line in the log that gives the reason."""
    logger.warning("features kept from an earlier run are not used: %s", reason)
    with suppress(SpaceportError, OSError):  # the next run checks it again
        place.remove([DATABASE_FILE])


def damage(database: Path) -> str | None:
    """The fault of a database that no process has open; None if its pages and tables are whole."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(database))}?immutable=1", uri=True)) as connection:
            [(first,)] = connection.execute("pragma quick_check(1)").fetchall()
            tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.DatabaseError as error:
        return str(error)
    if first != "ok":
        return str(first)
    missing = sorted(TABLES - tables)
    return f"it has no table {missing[0]}" if missing else None
