"""`spaceport run` that is ended from outside: one sentence, no process of it is left, no run stays Running."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.local_server import spaceport
from tests.patience import ended, eventually, work_of

OPTIONS = ("--preset", "draft", "-s", "train.max_gaussians=4000", "-s", "train.max_image_size=160")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that only the first run places the photos."""
    return tmp_path_factory.mktemp("ended") / "home"


class Run:
    """`spaceport run`, caught while it trains."""

    def __init__(self, home: Path, flight: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SPACEPORT_"))}
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - read after the process's end
        arguments = ["run", str(flight), *OPTIONS, "-s", "train.steps=20000"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            env={**kept, "SPACEPORT_HOME": str(home), "COLUMNS": "200"},
            cwd=home.parent,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )
        eventually(self._trains, "training", lambda: work_of(self.process.pid))
        self.family = psutil.Process(self.process.pid).children(recursive=True)
        [server] = [each for each in self.family if "prefect" in " ".join(each.cmdline())]
        assert "deployments.prefect_server" in server.cmdline()

    def _trains(self) -> bool:
        assert self.process.poll() is None, self.said
        return "\ntrain" in self.said

    @property
    def said(self) -> str:
        self.output.seek(0)
        return self.output.read().decode()

    def end(self, number: signal.Signals) -> int:
        """Send the signal, and return the exit status when neither the process nor one that it started is left."""
        self.process.send_signal(number)
        status = ended(self.process, "the run")
        eventually(lambda: not any(map(psutil.Process.is_running, self.family)), "end of all its processes")
        return status


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
    run = Run(home, flight)
    assert run.end(number) == status
    assert run.said.endswith(says)
    assert "Traceback" not in run.said
    assert states(home)[-1] == "CRASHED"


def test_kill_9_leaves_nothing_and_the_next_command_tells_the_server(home: Path, flight: Path) -> None:
    assert Run(home, flight).end(signal.SIGKILL) == -signal.SIGKILL
    assert states(home)[-1] == "RUNNING"
    finished = spaceport(home, "run", str(flight), *OPTIONS, "-s", "train.steps=60")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert states(home)[-2:] == ["CRASHED", "COMPLETED"]
    assert not list((home / "terminal-runs").iterdir())
