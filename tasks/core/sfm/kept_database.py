"""Features and matches of a run that was ended, kept for the next one: checked before use, dropped when they fail.

Keeping them is a convenience. A place that cannot be written or read costs a warning and never the reconstruction.
"""

import importlib.metadata
import logging
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from tasks.core.errors import SpaceportError
from tasks.core.storage.checkpoint_place import CheckpointPlace

logger = logging.getLogger(__name__)

LIBRARIES = ("pycolmap", "pillow")  # those that find features, and make the grey copies in which they are found
PREFIX = "database"
TABLES = {"cameras", "images", "keypoints", "descriptors", "matches", "two_view_geometries"}


def kept_name() -> str:
    """The file's name in the place where it is kept; another version of a library does not find it."""
    versions = "".join(f"-{library}-{importlib.metadata.version(library)}" for library in LIBRARIES)
    return f"{PREFIX}{versions}.db"


def keep(database: Path, place: CheckpointPlace) -> None:
    """Move a finished copy of the database to the place; a place that cannot take it is a warning."""
    try:
        with place.scratch() as scratch:
            place.put(Path(shutil.move(database, scratch / kept_name())))
    except (SpaceportError, OSError) as error:
        database.unlink(missing_ok=True)
        logger.warning("features and matches could not be kept for a later run (%s)", error)


def take(place: CheckpointPlace, target: Path) -> bool:
    """Copy the kept database to `target` if there is one that is whole; those that cannot be used are removed."""
    try:
        names = place.names()
        for name in names:
            if name.startswith(PREFIX) and name != kept_name():
                _remove(place, name, "another version of the libraries made it")
        if kept_name() not in names:
            return False
        shutil.copyfile(place.get(kept_name(), target.parent), target)
    except (SpaceportError, OSError) as error:
        target.unlink(missing_ok=True)
        logger.warning("features kept from an earlier run could not be read (%s)", error)
        return False
    found = damage(target)
    if found is not None:
        target.unlink()
        _remove(place, kept_name(), found)
    return found is None


def drop(place: CheckpointPlace, reason: str) -> None:
    """Remove the kept database, whose use has ended badly."""
    _remove(place, kept_name(), reason)


def damage(database: Path) -> str | None:
    """What is wrong with a database that no process has open; None if its pages and tables are whole."""
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


def _remove(place: CheckpointPlace, name: str, reason: str) -> None:
    logger.warning("%s, kept from an earlier run, is not used: %s", name, reason)
    with suppress(SpaceportError, OSError):  # the next run checks it again
        place.remove([name])
