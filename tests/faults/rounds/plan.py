"""The rounds of one seed: a fault each, in one stage, at one moment."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

from tasks.core.stages import STAGES

# Who runs it (a command in a terminal, or the server and the workers of `spaceport up`), where the workspace and the
# result are, and what may happen there.
FAULTS = {
    ("terminal", "folder"): ("kill -9", "kill -9 of its server", "SIGTERM", "SIGINT", "SIGHUP", "ENOSPC", "EIO"),
    ("terminal", "s3"): ("kill -9", "SIGTERM", "5xx", "slow", "cut", "lost"),
    ("server", "folder"): (
        *("kill -9 of the stage", "SIGTERM of the stage", "cancel"),
        *("kill -9 of the worker", "kill -9 of the server"),
    ),
    ("server", "s3"): ("kill -9 of the stage", "5xx", "cut"),
}
TURNS = (  # rounds in a terminal take half the time
    *(("terminal", "folder"), ("terminal", "s3"), ("server", "folder")),
    *(("terminal", "folder"), ("terminal", "s3"), ("server", "s3")),
)


@dataclass(frozen=True)
class Round:
    """One fault."""

    number: int
    runs_in: str  # "terminal" or "server"
    storage: str  # "folder" or "s3"
    fault: str
    stage: str  # in which it happens
    moment: float  # share of the time that the stage usually takes, from its beginning
    over_older: bool  # whether an older result is at the destination
    lasts_seconds: float  # for faults that end

    @property
    def where(self) -> tuple[str, str]:
        return self.runs_in, self.storage


def draw(rounds: int, seed: int) -> list[Round]:
    """Draw the rounds of a seed, sorted by where they run; no fault comes twice before all have come."""
    random = Random(seed)
    decks = {where: _deck(faults, random) for where, faults in FAULTS.items()}
    drawn = []
    for number, where in enumerate(islice(cycle(TURNS), rounds)):
        fault, stage = next(decks[where])
        moment, older, seconds = random.uniform(0, 1.1), random.random() < 0.5, random.uniform(1, 10)
        drawn.append(Round(number, *where, fault, stage, moment, older, seconds))
    return sorted(drawn, key=lambda each: (TURNS.index(each.where), each.number))


def _deck(faults: tuple[str, ...], random: Random) -> Iterator[tuple[str, str]]:
    """All pairs of a fault and a stage, again and again."""
    while True:
        stages = {fault: random.sample(STAGES, len(STAGES)) for fault in faults}
        for lap in range(len(STAGES)):
            yield from ((fault, stages[fault][lap]) for fault in random.sample(faults, len(faults)))
