"""Matches of real photos, ours beside COLMAP's two threads in one process: `python -m tests.benchmarks.matching fox`.

Both start from the same features and take turns. The table says how many different results each of them had, and what
they cost; pycolmap's own threads give another result now and then (tasks/core/sfm/matching.py).
"""

import argparse
import hashlib
import logging
import resource
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pycolmap

from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.match_part import BLOCK, NamePair, write_pairs
from tasks.core.sfm.matching import RESULTS, in_tiles, match_pairs, processes_for
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import choose_pairs
from tests.benchmarks.sfm import SETS, SHARED_DATA

CORES = 2
Match = Callable[[Path, list[NamePair]], None]


def ours(database: Path, pairs: list[NamePair]) -> None:
    match_pairs(database, pairs, SfmOptions().random_seed, processes_for(len(pairs), CORES))


def threads(database: Path, pairs: list[NamePair]) -> None:
    write_pairs(database.with_name("threads.txt"), pairs)
    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, CORES
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SfmOptions().random_seed
    pairing = pycolmap.ImportedPairingOptions(match_list_path=database.with_name("threads.txt"), block_size=BLOCK)
    pycolmap.match_image_pairs(database, options, pairing, verification)


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    both = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def digest(database: Path) -> str:
    """Of all matches and two-view geometries."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(database)) as connection:
        for table in RESULTS:
            for row in connection.execute(f"select * from {table} order by pair_id"):
                found.update(repr(row).encode())
    return found.hexdigest()[:8]


def main() -> None:
    """Match in turn, and print a row for each of the two."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.matching", description=__doc__)
    parser.add_argument("photos", choices=SETS, help="a set of ../shared/data")
    parser.add_argument("--rounds", type=int, default=20, help="how often each matches (default: %(default)s)")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    pycolmap.logging.minloglevel = 2
    sides: dict[str, Match] = {"ours": ours, "threads": threads}
    results: dict[str, Counter[str]] = {name: Counter() for name in sides}
    walls: dict[str, list[float]] = {name: [] for name in sides}
    cpus: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory(prefix="bench-matching-") as name:
        folder = Path(name)
        photos = ingest(SHARED_DATA / SETS[arguments.photos], folder / "photos", PhotosOptions(), ignore_progress)
        features = FeatureDatabase(folder / "first", folder / "photos", photos.photo_set.photos, SfmOptions())
        features.add_cameras()
        features.extract()
        chosen = in_tiles(choose_pairs(photos.photo_set.photos, SfmOptions()).pairs)
        pairs = [(features.names[a], features.names[b]) for a, b in chosen]
        for _ in range(arguments.rounds):
            for side, match in sides.items():
                (folder / "round").mkdir()
                database = Path(shutil.copy(features.path, folder / "round"))
                wall, cpu = time.monotonic(), cpu_seconds()
                match(database, pairs)
                walls[side].append(time.monotonic() - wall)
                cpus[side].append(cpu_seconds() - cpu)
                results[side][digest(database)] += 1
                shutil.rmtree(folder / "round")
    print(f"{len(pairs)} pairs of {arguments.photos}, {arguments.rounds} rounds each\n")
    print("| | most common result | others | wall s, median | CPU-s, median |\n|---|---|---|---|---|")
    for side, found in results.items():
        [(_, most)] = found.most_common(1)
        wall, cpu = statistics.median(walls[side]), statistics.median(cpus[side])
        print(f"| {side} | {most} | {found.total() - most} | {wall:.2f} | {cpu:.2f} |")
    ratios = [statistics.median(side["ours"]) / statistics.median(side["threads"]) for side in (walls, cpus)]
    print(f"\nours / threads: wall {ratios[0]:.2f}, CPU {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
