"""`spaceport run` that is ended from outside: one sentence, no process of it is left, no run stays Running."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.command import Command
from tests.support.local_server import spaceport

OPTIONS = ("--preset", "draft", "-s", "train.max_gaussians=4000", "-s", "train.max_image_size=160")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that only the first run places the photos."""
    return tmp_path_factory.mktemp("ended") / "home"


def training(home: Path, flight: Path) -> Command:
    """`spaceport run` that has begun to train."""
    run = Command(["run", str(flight), *OPTIONS, "-s", "train.steps=20000"], home)
    run.wait_for("train")
    assert not run.is_over, run.said
    assert run.server() is not None
    return run


def states(home: Path) -> list[str]:
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        return [row[0] for row in database.execute("SELECT state_type FROM flow_run ORDER BY created")]


@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (signal.SIGTERM, 143, "ended by SIGTERM; what was finished stays in the workspace\n"),
        (signal.SIGINT, 130, "cancelled; what was finished stays in the workspace\n"),
        (signal.SIGHUP, 143, ""),  # there is no terminal any more to say anything on
    ],
)
def test_a_signal_ends_all_of_it(number: signal.Signals, status: int, says: str, home: Path, flight: Path) -> None:
    run = training(home, flight)
    assert run.end(number) == status
    assert run.said.endswith(says)
    assert "Traceback" not in run.said
    assert states(home)[-1] == "CRASHED"


def test_kill_9_leaves_nothing_and_the_next_command_tells_the_server(home: Path, flight: Path) -> None:
    assert training(home, flight).end(signal.SIGKILL) == -signal.SIGKILL
    assert states(home)[-1] == "RUNNING"
    finished = spaceport(home, "run", str(flight), *OPTIONS, "-s", "train.steps=60")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert states(home)[-2:] == ["CRASHED", "COMPLETED"]
    assert not list((home / "terminal-runs").iterdir())
