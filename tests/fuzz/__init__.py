"""Seeded rounds of damage against everything that reads what strangers made.

Each module of this package, apart from `rounds` and the tests, is one target, and has

    ROUND: Callable[[random.Random, Path], None]  # does one round in an empty folder; raises on a fault
    SUITE_ROUNDS: int                             # as many rounds as the suite plays: some seconds

A round takes all of its chances from the `Random` it is given, so that the same seed and number play it again. It
writes below its folder only, and is at fault when it raises: let through no exception but the refusals that the
product promises, and assert what must hold (nothing written elsewhere, nothing lost). Rounds that never end, end the
process, or take too much memory are noticed by `rounds`. A new target is a new file, which needs no other change.

    python -m tests.fuzz                            # the suite's rounds of every target
    python -m tests.fuzz photos --seconds 600       # one target, for ten minutes
    python -m tests.fuzz photos --seed 7 --first 41 --rounds 1
"""
