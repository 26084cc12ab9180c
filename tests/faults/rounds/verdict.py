"""Findings of one round."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.patience import eventually

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
GRACE_LOOKS = 200  # of a tenth of a second, for processes that are about to end


NOT_FOR_PEOPLE = ("Traceback", "Error logging to API")  # stack traces, and what Prefect says of its own log lines


@dataclass
class Verdict:
    """What is not as it should be; four empty lists are a passed round."""

    happened: str = ""  # for people
    wrong: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.wrong or self.left_over or self.orphans or self.running)

    def said(self, output: str) -> None:
        """Judge what an ended command has written."""
        for words in NOT_FOR_PEOPLE:
            if words in output:
                self.wrong.append(f"shows {output[output.index(words) :][-300:]!r}")

    def look(self, home: Path, temporary: Path, left_over: list[str]) -> None:
        """Judge what a command has left, after the one that followed it has ended."""
        self.left_over += left_over
        self.left_over += sorted(str(path) for path in temporary.rglob("*"))
        self.left_over += sorted(str(path) for path in (home / "terminal-runs").glob("*"))
        self.left_over += sorted(str(path) for path in home.rglob("*partial*"))
        self.running += running(home)


def family_of(home: Path) -> list[psutil.Process]:
    """The processes that any command with this home has started, and that live."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SPACEPORT_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def orphans(alive: Callable[[], list[psutil.Process]]) -> list[str]:
    """The processes that do not end by themselves, which are killed."""
    looks = 0

    def ended_or_late() -> bool:
        nonlocal looks
        looks += 1
        return not alive() or looks > GRACE_LOOKS

    eventually(ended_or_late, "end of processes")
    found = []
    for process in alive():
        with suppress(psutil.Error):
            found.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
            process.kill()
    return found


def running(home: Path) -> list[str]:
    """The runs of a home's database that have not ended."""
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        rows = database.execute("SELECT name, state_type FROM flow_run").fetchall()
    return [f"{name} is {state}" for name, state in rows if state not in ENDED]
