"""`python -m tasks.core.sfm.match_part FOLDER SEED STILL_PX`: match some pairs in one thread, for matching.py.

It imports little, so that it starts quickly.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pycolmap

BLOCK = 64  # pairs that are matched between two lines of progress; also how many photos' search trees are kept
PART_DATABASE = "database.db"
PAIRS_FILE = "pairs.txt"

NamePair = tuple[str, str]  # of photos in the database


def verification_options(seed: int, still_px: float | None) -> pycolmap.TwoViewGeometryOptions:
    """Options of the check of a pair's matches. Those that move by less than `still_px` px are left out, if given."""
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    if still_px is not None:
        options.filter_stationary_matches = True
        options.stationary_matches_max_error = still_px
    return options


def match_here(database: Path, pairs: Sequence[NamePair], seed: int, still_px: float | None) -> None:
    """Match and verify pairs in this process; what is found is added to the database."""
    pairs_file = database.with_name(PAIRS_FILE)
    write_pairs(pairs_file, pairs)
    matching = pycolmap.FeatureMatchingOptions()
    matching.use_gpu = False
    matching.num_threads = 1  # beside it one thread verifies, which calls no BLAS
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = pairs_file
    pairing.block_size = BLOCK
    pycolmap.match_image_pairs(database, matching, pairing, verification_options(seed, still_px))


def write_pairs(file: Path, pairs: Sequence[NamePair]) -> None:
    """Write pairs as COLMAP reads them. No name has a space."""
    file.write_text("".join(f"{first} {second}\n" for first, second in pairs), encoding="utf-8")


def main(folder: Path, seed: int, still_px: float | None) -> None:
    """Match the pairs of a folder in the database beside them.

    The process ends with its parent, which holds the other end of stdin.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pycolmap.logging.logtostderr = True  # as in the process that has started this one
    pycolmap.set_random_seed(seed)
    lines = (folder / PAIRS_FILE).read_text(encoding="utf-8").splitlines()
    match_here(folder / PART_DATABASE, [(first, second) for first, second in map(str.split, lines)], seed, still_px)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3] else None)
