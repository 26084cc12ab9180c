"""Matching in several processes, each with one thread: the same matches however many they are."""

import shutil
import signal
import sqlite3
from contextlib import closing
from itertools import combinations
from pathlib import Path

import psutil
import pycolmap
import pytest

from tasks.core.errors import SfmCrashError
from tasks.core.progress import Progress
from tasks.core.sfm import features as features_module
from tasks.core.sfm import matching
from tasks.core.sfm.cameras import find_cameras
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.matching import LEAST_PAIRS, NamePair, in_tiles, match_pairs, processes_for
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import PairChoice
from tasks.core.sfm.process import ProgressLog
from tests.core.sfm.conftest import Flight
from tests.core.sfm.patched_worker import patch_worker
from tests.support.patience import eventually, is_alive

SEED = 3


@pytest.fixture(scope="module")
def features(flight: Flight, tmp_path_factory: pytest.TempPathFactory) -> FeatureDatabase:
    folder = tmp_path_factory.mktemp("features") / "first"
    database = FeatureDatabase(folder, flight.photos, flight.photo_set.photos, SfmOptions())
    database.add_cameras()
    database.extract()
    return database


@pytest.fixture
def database(features: FeatureDatabase, tmp_path: Path) -> Path:
    return Path(shutil.copy(features.path, tmp_path / "database.db"))


@pytest.fixture
def pairs(features: FeatureDatabase) -> list[NamePair]:
    return list(combinations(features.names, 2))


def results(database: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(database)) as connection:
        return [connection.execute(f"select * from {table} order by pair_id").fetchall() for table in matching.RESULTS]


def plain(database: Path, pairs: list[NamePair]) -> None:
    """As pycolmap does it in one thread, with nothing of ours."""
    file = database.with_name("plain.txt")
    file.write_text("".join(f"{a} {b}\n" for a, b in pairs))
    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, 1
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    pycolmap.match_image_pairs(database, options, pycolmap.ImportedPairingOptions(match_list_path=file), verification)


def test_any_number_of_processes_finds_what_one_thread_finds(
    database: Path, pairs: list[NamePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "LEAST_PAIRS", 4)
    found = []
    for processes in (1, 2, 5):
        copy = Path(shutil.copy(database, tmp_path / f"{processes}.db"))
        match_pairs(copy, pairs, SEED, processes)
        found.append(results(copy))
    plain(database, pairs)
    wanted = results(database)
    assert [len(rows) for rows in wanted] == [len(pairs), len(pairs)]
    assert found == [wanted] * 3
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == []


def test_what_is_done_is_left_as_it_is(database: Path, pairs: list[NamePair]) -> None:
    match_pairs(database, pairs[:LEAST_PAIRS], SEED, 2)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update two_view_geometries set config = 77")
        connection.commit()
    match_pairs(database, [(b, a) for a, b in pairs], SEED, 2)
    configs = [row[4] for row in results(database)[1]]
    assert configs.count(77) == LEAST_PAIRS
    assert len(configs) == len(pairs)


def test_no_process_matches_in_two_threads(
    database: Path, pairs: list[NamePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one process write into the same buffer of its BLAS."""
    code = f"""
native = pycolmap.match_image_pairs

def noting(database, options, *others):
    with open({str(tmp_path / "threads")!r}, "a") as file:
        print(options.num_threads, file=file)
    native(database, options, *others)

pycolmap.match_image_pairs = noting
"""
    patch_worker(tmp_path, code, monkeypatch)
    own: list[int] = []
    monkeypatch.setattr(pycolmap, "match_image_pairs", lambda _, options, *__: own.append(options.num_threads))
    match_pairs(database, pairs, SEED, 2)
    assert own == [1]
    assert (tmp_path / "threads").read_text().split() == ["1"]


def test_one_that_dies_ends_the_others(
    database: Path, pairs: list[NamePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
import os, time

def one_aborts(database, *others):
    if "matching-0" in str(database):
        os.abort()
    with open({str(tmp_path / "other")!r}, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)

pycolmap.match_image_pairs = one_aborts
"""
    patch_worker(tmp_path, code, monkeypatch)
    monkeypatch.setattr(matching, "LEAST_PAIRS", 4)
    with pytest.raises(SfmCrashError, match="A process that matches photos was killed by SIGABRT"):
        match_pairs(database, pairs, SEED, 3)
    if (tmp_path / "other").exists():
        assert not psutil.pid_exists(int((tmp_path / "other").read_text()))


def test_they_end_when_the_worker_is_killed(flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when its own group is not: they hold the other end of a pipe."""
    patch_worker(tmp_path, "pycolmap.match_image_pairs = lambda *_: __import__('time').sleep(600)", monkeypatch)
    seen: list[psutil.Process] = []

    def kill(progress: Progress) -> None:
        if progress.note.startswith("matching"):
            [worker] = [p for p in psutil.Process().children() if "tasks.core.sfm.pipeline" in p.cmdline()]
            seen.extend(eventually(worker.children, "matching processes"))
            worker.send_signal(signal.SIGKILL)

    with pytest.raises(SfmCrashError):
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), kill)
    [process] = seen  # beside the worker itself
    eventually(lambda: not is_alive(process), "end of the matching process")


def test_each_process_has_the_memory_that_it_needs(features: FeatureDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        features_module, "match_pairs", lambda database, pairs, seed, processes, still_px: asked.append(processes)
    )
    monkeypatch.setattr(features_module, "_cores", lambda: 16)
    choice = PairChoice("exhaustive", tuple(combinations(range(len(features.names)), 2)))
    for free_bytes in (16e9, 0.5e9):
        monkeypatch.setattr(features_module, "available_memory_bytes", lambda free_bytes=free_bytes: int(free_bytes))
        features.match(choice)
    assert asked == [2, 1]


def test_tiles_keep_near_photos_together() -> None:
    pairs = list(combinations(range(100), 2))
    tiled = in_tiles(pairs)
    assert sorted(tiled) == pairs
    assert in_tiles([(0, 40), (0, 1), (33, 34), (1, 2)]) == [(0, 1), (1, 2), (0, 40), (33, 34)]
    for begin in range(0, len(tiled), 256):
        assert len({photo for pair in tiled[begin : begin + 256] for photo in pair}) <= 3 * matching.TILE


def test_few_pairs_are_not_worth_more_processes() -> None:
    assert [processes_for(pairs, cores=4) for pairs in (0, LEAST_PAIRS, 2 * LEAST_PAIRS, 1000)] == [1, 1, 2, 4]


def test_progress_adds_up_over_processes(tmp_path: Path) -> None:
    """Each counts its own blocks, and names one as it begins."""
    seen: list[Progress] = []
    log = tmp_path / "sfm.log"
    block = "I20261128 11:00:00.000001 {} pairing.cc:1] Processing block [{}/5]\n"
    log.write_text(
        "phase matching 20\nmatching after 0 blocks\n"
        + "".join(block.format(thread, number) for number in (1, 2, 3, 4) for thread in ("11", "  12"))
    )
    progress = ProgressLog(log, seen.append)
    progress.report_news()
    assert seen[-1].note.startswith("matching, block 6/20")
    with log.open("a") as file:
        file.write("matching after 10 blocks\n" + block.format("13", 1) + block.format("14", 3))
    progress.report_news()
    assert seen[-1].note.startswith("matching, block 12/20")


def test_progress_adds_up_over_parts_that_are_mapped_at_once(tmp_path: Path) -> None:
    seen: list[Progress] = []
    log = tmp_path / "sfm.log"
    line = "I20261128 11:00:00.000001 {} incremental_pipeline.cc:1] Registering image #7 (num_reg_frames={})\n"
    log.write_text("phase mapping 900\n" + line.format("11", 40) + line.format("12", 30) + line.format("11", 41))
    ProgressLog(log, seen.append).report_news()
    assert seen[-1].note.startswith("placed 71/900 photos")
