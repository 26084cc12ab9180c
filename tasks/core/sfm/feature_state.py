"""Keep two things beside the features in the database: masks of what never changes, and how far the search is.

A later run continues from a copy of the database, so everything that the rest of the search needs is in it.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from tasks.core.photoset import Photo
from tasks.core.sfm.overlay import FrameChanges, Mask

FrameKind = tuple[int, int, str]  # width, height, make and model: photos that can have the same overlay

# Tables of ours
OVERLAY_TABLE = "unchanging"
PROGRESS_TABLE, CHANGES_TABLE = "features_so_far", "changes_so_far"  # only until all photos are done


def frame_kind(photo: Photo) -> FrameKind:
    """Return what photos of one camera have in common."""
    return photo.width, photo.height, photo.camera or ""


def write_overlays(connection: sqlite3.Connection, overlays: dict[FrameKind, Mask]) -> None:
    """Store the masks of what never changes."""
    connection.execute(
        f"create table {OVERLAY_TABLE} (width integer, height integer, camera text, rows integer, columns integer, "
        "data blob)"
    )
    values = [(*kind, *mask.shape, mask.tobytes()) for kind, mask in sorted(overlays.items())]
    connection.executemany(f"insert into {OVERLAY_TABLE} values (?, ?, ?, ?, ?, ?)", values)


def read_overlays(database: Path) -> dict[FrameKind, Mask]:
    """Read the masks of what never changes."""
    with closing(sqlite3.connect(database)) as connection:
        if not _has_table(connection, OVERLAY_TABLE):
            return {}
        stored = connection.execute(f"select * from {OVERLAY_TABLE}").fetchall()
    return {
        (width, height, camera): np.frombuffer(data, np.bool_).reshape(rows, columns)
        for width, height, camera, rows, columns, data in stored
    }


def write_progress(database: Path, photos: int, changes: dict[FrameKind, FrameChanges]) -> None:
    """Store that so many photos have their features, and the sums over them."""
    with closing(sqlite3.connect(database)) as connection:
        _drop_progress(connection)
        connection.execute(f"create table {PROGRESS_TABLE} (photos integer)")
        connection.execute(f"insert into {PROGRESS_TABLE} values (?)", (photos,))
        arrays = ", ".join(f"{name} blob" for name in FrameChanges.ARRAYS)
        connection.execute(
            f"create table {CHANGES_TABLE} (width integer, height integer, camera text, photos integer, rows integer, "
            f"columns integer, {arrays})"
        )
        for kind, of_kind in sorted(changes.items()):
            stored = of_kind.arrays()
            values = (*kind, of_kind.photos, *stored[0].shape, *(array.tobytes() for array in stored))
            connection.execute(f"insert into {CHANGES_TABLE} values ({', '.join('?' * len(values))})", values)
        connection.commit()


def read_progress(database: Path, photos: int) -> tuple[int, dict[FrameKind, FrameChanges]]:
    """Return how many of the photos have their features, and the sums over them; nothing is needed once all have."""
    with closing(sqlite3.connect(database)) as connection:
        if not _has_table(connection, PROGRESS_TABLE):
            begun = connection.execute("select 1 from keypoints limit 1").fetchone()
            return (photos if begun else 0), {}
        [(done,)] = connection.execute(f"select photos from {PROGRESS_TABLE}").fetchall()
        stored = connection.execute(f"select * from {CHANGES_TABLE}").fetchall()
    changes = {
        (width, height, camera): FrameChanges.of(counted, (rows, columns), blobs)
        for width, height, camera, counted, rows, columns, *blobs in stored
    }
    return done, changes


def end_progress(database: Path) -> None:
    """Store that all photos have their features."""
    with closing(sqlite3.connect(database)) as connection:
        _drop_progress(connection)
        connection.commit()


def _drop_progress(connection: sqlite3.Connection) -> None:
    for table in (PROGRESS_TABLE, CHANGES_TABLE):
        connection.execute(f"drop table if exists {table}")


def _has_table(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone() is not None
