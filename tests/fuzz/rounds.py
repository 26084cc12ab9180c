"""Plays the rounds of one target in this process, and says which round was at fault."""

import faulthandler
import importlib
import itertools
import pkgutil
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import tests.fuzz

NO_TARGETS = ("rounds", "__main__")
HANGS_SECONDS = 120  # for one round, most of which take milliseconds
MOST_GROWTH_BYTES = 1 << 30  # of the process's resident memory, over all rounds


class FaultError(Exception):
    """A round went wrong; the text says how to play it again."""


def targets() -> list[str]:
    """The names of all modules with rounds."""
    found = (module.name for module in pkgutil.iter_modules(tests.fuzz.__path__))
    return sorted(name for name in found if name not in NO_TARGETS and not name.startswith("test_"))


def suite_rounds(target: str) -> int:
    """As many rounds as the suite plays of a target."""
    return int(_module(target).SUITE_ROUNDS)


def play(target: str, seed: int, first: int, goes_on: Callable[[int], bool]) -> int:
    """Play rounds from number `first` while `goes_on(rounds played)` is true; the count of those played.

    Raises FaultError for the first round that raises, or after which the process has grown too much. The process ends
    with all stacks on stderr where a round does not end.
    """
    play_round = _module(target).ROUND
    before = _most_resident_bytes()
    for number in itertools.count(first):
        if not goes_on(number - first):
            return number - first
        print(f"\r{target}, seed {seed}: round {number}", end="", flush=True)  # the last one is at fault
        faulthandler.dump_traceback_later(HANGS_SECONDS, exit=True)
        again = f"python -m tests.fuzz {target} --seed {seed} --first {number} --rounds 1"
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            try:
                play_round(random.Random(f"{target} {seed} {number}"), Path(folder))
            except Exception as error:
                raise FaultError(f"{type(error).__name__}: {error}; again with: {again}") from error
            finally:
                faulthandler.cancel_dump_traceback_later()
        grown = _most_resident_bytes() - before
        if grown > MOST_GROWTH_BYTES:
            raise FaultError(f"memory has grown by {grown / 1e6:.0f} MB; again with: {again}")
    raise AssertionError("an endless count has ended")


def for_seconds(seconds: float) -> Callable[[int], bool]:
    """True until so many seconds have passed."""
    end = time.monotonic() + seconds
    return lambda _: time.monotonic() < end


def for_rounds(rounds: int) -> Callable[[int], bool]:
    """True for so many rounds."""
    return lambda played: played < rounds


def _module(target: str) -> ModuleType:
    return importlib.import_module(f"tests.fuzz.{target}")


def _most_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
