"""Match photos with one thread in each of several processes: two threads in one process corrupt each other's results.

The OpenBLAS in pycolmap's wheels is built for one thread. FAISS, which looks for the matches, calls it from each of
COLMAP's matching threads, and such a build lets two of them write into the same buffer
(https://github.com/OpenMathLib/OpenBLAS/issues/1755). On busy cores one run in some 90 lost hundreds of matches of one
or two pairs, and ended with other cameras. Here each process works on a copy of what it needs of the database.
"""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pycolmap

from tasks.core.machine_memory import oom_kills
from tasks.core.sfm import match_part
from tasks.core.sfm.match_part import BLOCK, PAIRS_FILE, PART_DATABASE, NamePair, match_here, write_pairs
from tasks.core.sfm.pairs import Pair
from tasks.core.sfm.worker import ending

TILE = BLOCK // 2  # photos: the pairs between two tiles need no more search trees than are kept
LEAST_PAIRS = 16  # that are worth a process, which takes 0.3 s to start
RESULTS = ("matches", "two_view_geometries")
FEATURES = ("keypoints", "descriptors")
POLL_SECONDS = 0.02


def in_tiles(pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs, those of near photos together, so that few search trees are built twice."""
    return sorted(pairs, key=lambda pair: (pair[0] // TILE, pair[1] // TILE, pair))


def processes_for(pairs: int, cores: int) -> int:
    """Return how many processes are worth starting."""
    return max(1, min(cores, pairs // LEAST_PAIRS))


def match_pairs(
    database: Path, pairs: Sequence[NamePair], seed: int, processes: int, still_px: float | None = None
) -> None:
    """Match and verify the pairs that the database has no result of yet, and add what was found to it.

    The result does not depend on the number of processes. Matches that move by less than `still_px` px of the photos
    are left out, if it is given.

    Raises:
        StageError: a process failed; one of those of `ending`.
    """
    done = _done(database)
    missing = [pair for pair in pairs if frozenset(pair) not in done]
    if not missing:
        return
    size = -(-len(missing) // processes_for(len(missing), processes))
    own, *parts = (missing[begin : begin + size] for begin in range(0, len(missing), size))
    folders = [database.with_name(f"matching-{i}") for i in range(len(parts))]
    for folder, part in zip(folders, parts, strict=True):
        folder.mkdir()
        _write_part(database, folder / PART_DATABASE, {name for pair in part for name in pair})
        write_pairs(folder / PAIRS_FILE, part)
    arguments = [str(seed), "" if still_px is None else str(still_px)]
    with _running([[sys.executable, "-m", match_part.__name__, str(folder), *arguments] for folder in folders]):
        match_here(database, own, seed, still_px)
    for folder in folders:
        _take_results(database, folder / PART_DATABASE)
        shutil.rmtree(folder)


@contextmanager
def _running(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Run commands during the block, then wait for their ends. Each also ends when this process does."""
    oom_kills_before = oom_kills()
    children: list[subprocess.Popen[bytes]] = []
    try:
        children.extend(subprocess.Popen(command, stdin=subprocess.PIPE) for command in commands)
        yield
        while any(child.poll() is None for child in children) and not any(child.returncode for child in children):
            time.sleep(POLL_SECONDS)
        failed = next((child.returncode for child in children if child.returncode), None)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.communicate()
    if failed is not None:
        raise ending("A process that matches photos", failed, oom_kills_before, "")


def _done(database: Path) -> set[frozenset[str]]:
    with closing(sqlite3.connect(database)) as connection:
        names = dict(connection.execute("select image_id, name from images"))
        found = connection.execute("select pair_id from two_view_geometries").fetchall()
    return {frozenset(names[i] for i in pycolmap.pair_id_to_image_pair(pair)) for (pair,) in found}


def _write_part(database: Path, part: Path, names: set[str]) -> None:
    """Write a database without results, and with the features of these photos alone."""
    pycolmap.Database.open(part).close()
    with closing(sqlite3.connect(part)) as connection:
        connection.execute("pragma synchronous = off")  # nothing in it outlives this process
        connection.execute("attach ? as whole", [str(database)])
        connection.execute("create temp table wanted (image_id integer primary key)")
        connection.executemany(
            "insert into wanted select image_id from whole.images where name = ?", [(name,) for name in sorted(names)]
        )
        named = "select name from {}.sqlite_master where type = 'table' and name not like 'sqlite_%'"
        of_part = {name for (name,) in connection.execute(named.format("main"))}  # without a table of our own
        tables = connection.execute(named.format("whole"))
        for (table,) in tables.fetchall():
            if table in RESULTS or table not in of_part:
                continue
            which = "where image_id in wanted" if table in FEATURES else ""
            connection.execute(f"insert into main.{table} select * from whole.{table} {which}")
        connection.commit()


def _take_results(database: Path, part: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("attach ? as part", [str(part)])
        for table in RESULTS:
            connection.execute(f"insert or replace into main.{table} select * from part.{table}")
        connection.commit()
