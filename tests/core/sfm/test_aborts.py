"""Real ends of pycolmap's process: each becomes one of our errors, and no process or file is left.

pycolmap is made to do what is known to end it, by SIGABRT as a rule, which no Python code can catch.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.errors import SfmCrashError, StageError
from tasks.core.progress import ignore_progress
from tasks.core.sfm import mapping
from tasks.core.sfm.cameras import find_cameras
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.mapping import Mapped
from tasks.core.sfm.options import SfmOptions
from tests.core.sfm.conftest import Flight
from tests.core.sfm.patched_worker import patch_worker

FEATURES_OF_ANOTHER_KIND = """
native = pycolmap.extract_features

def extract_features(*args, extraction_options):
    extraction_options.type = pycolmap.FeatureExtractorType.ALIKED_N16ROT
    native(*args, extraction_options=extraction_options)

pycolmap.extract_features = extract_features
"""
LEARNT_MATCHER = """
native = pycolmap.match_image_pairs

def match_image_pairs(database, matching, *others):
    matching.type = pycolmap.FeatureMatcherType.SIFT_LIGHTGLUE
    native(database, matching, *others)

pycolmap.match_image_pairs = match_image_pairs
"""
VOCABULARY_OUT_OF_REACH = """
def match_image_pairs(database, *others):
    nowhere = f"http://127.0.0.1:9/tree.bin;tree.bin;{'0' * 64}"
    pycolmap.match_vocabtree(database, pairing_options=pycolmap.VocabTreePairingOptions(vocab_tree_path=nowhere))

pycolmap.match_image_pairs = match_image_pairs
"""
DATABASE_IN_OTHER_HANDS = """
import subprocess
native = pycolmap.extract_features
holder = (
    "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('begin exclusive'); "
    "print(flush=True); sys.stdin.read()"
)

def extract_features(database, *args, **options):
    with subprocess.Popen([sys.executable, "-c", holder, str(database)], stdin=-1, stdout=-1) as process:
        process.stdout.readline()  # it has the lock
        native(database, *args, **options)

pycolmap.extract_features = extract_features
"""
ABORT_WHILE_MAPPING = """
import os
native = pycolmap.incremental_mapping

def incremental_mapping(*args):
    native(*args, initial_image_pair_callback=os.abort)

pycolmap.incremental_mapping = incremental_mapping
"""

CASES = {
    "features without ONNX": (FEATURES_OF_ANOTHER_KIND, SfmCrashError, r"SIGABRT.*ONNX"),
    "matcher without ONNX": (LEARNT_MATCHER, SfmCrashError, r"SIGABRT.*ONNX"),
    "vocabulary tree out of reach": (VOCABULARY_OUT_OF_REACH, SfmCrashError, r"SIGABRT.*[Dd]ownload"),
    "database in other hands": (DATABASE_IN_OTHER_HANDS, StageError, r"failed with \w+: No registered database"),
    "native abort while mapping": (ABORT_WHILE_MAPPING, SfmCrashError, r"SIGABRT"),
}


@pytest.mark.parametrize("case", CASES)
def test_abort_becomes_an_error(case: str, flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, kind, said = CASES[case]
    patch_worker(tmp_path, code, monkeypatch)
    with pytest.raises(StageError, match=said) as caught:
        find_cameras(flight.photos, tmp_path / "out", SfmOptions(), ignore_progress)
    assert type(caught.value) is kind
    assert not (tmp_path / "out/.work").exists()


ABORT_OF_GLOBAL_MAPPER = """
import os
pycolmap.global_mapping = lambda *_: os.abort()
"""


def test_abort_of_the_global_mapper(flight: Flight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error where it alone is wanted, and a note where it was to rescue an incremental model."""
    patch_worker(tmp_path, ABORT_OF_GLOBAL_MAPPER, monkeypatch, ["mapping"])
    options = SfmOptions(mapper="global")
    with pytest.raises(SfmCrashError, match=r"global mapper was killed by SIGABRT.*sfm\.mapper=auto"):
        find_cameras(flight.photos, tmp_path / "out", options, ignore_progress)
    poor = Mapped("incremental", None, 2)
    monkeypatch.setattr(mapping, "map_incrementally", lambda *_: poor)
    database = FeatureDatabase(tmp_path / "database", flight.photos, flight.photo_set.photos, SfmOptions())
    found = mapping.map_photos(database, tmp_path / "models", SfmOptions())
    assert found == replace(poor, note="global: was killed by SIGABRT")
