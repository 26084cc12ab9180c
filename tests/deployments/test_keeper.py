"""A worker or the pages' server that dies is started again, some times in a row; one that was stopped is not."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from deployments.local import keeper
from deployments.local.keeper import PAUSES_SECONDS, STEADY_SECONDS, Keeper, read_kept
from deployments.local.processes import died, find, kill, start, stop
from deployments.local.state import (
    PAGES,
    SERVER,
    LocalServer,
    alone,
    folder_of,
    process_environment,
    running_server,
    unless_at_work,
    write_state,
)
from deployments.local.status import examine
from deployments.plan import Plan
from tests.conftest import REPOSITORY
from tests.support.patience import STALL_SECONDS, eventually
from tests.support.server_process import free_port

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
BROKEN = [sys.executable, "-c", "raise SystemExit('No module named prefect')"]


class Machine:
    """A home with a server that is only a process, and a clock that the test moves."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, folder_of(home)
        self.now = datetime.now(UTC).timestamp()
        self.command = SLEEPER
        self.refusal: str | None = None
        self.started: list[str] = []
        self.keeper = Keeper(home, self._start)
        start(SERVER, SLEEPER, self.folder, os.environ)
        start(PAGES, SLEEPER, self.folder, os.environ)
        plan = Plan(workspace="/w", pages_url="http://127.0.0.1:1/secret")
        write_state(home, LocalServer(port=free_port(), pages_port=1, plan=plan))

    def _start(self, name: str) -> str | None:
        self.started.append(name)
        if self.refusal is None:
            start(name, self.command, self.folder, os.environ)
        return self.refusal

    def look(self, after_seconds: float = 0.0) -> None:
        self.now += after_seconds
        self.keeper.look(self.now)

    def status(self) -> str:
        """Of the pages."""
        server = running_server(self.home)
        assert server is not None
        return next(part.says for part in examine(server, self.home) if part.name == PAGES)

    def lose_pages(self) -> None:
        found = find(PAGES, self.folder)
        if found is not None:
            os.kill(found.pid, signal.SIGKILL)
        eventually(lambda: died(PAGES, self.folder), "end of the pages")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    for name in (PAGES, SERVER):
        stop(name, made.folder, 0.0)


def test_what_dies_is_started_again_at_once(machine: Machine) -> None:
    machine.look()
    assert machine.started == []
    machine.lose_pages()
    machine.look()
    assert machine.started == [PAGES]
    assert find(PAGES, machine.folder) is not None
    machine.look()
    assert machine.started == [PAGES], "there would be two"
    kept = read_kept(machine.home)[PAGES]
    assert (kept.restarts, kept.last, kept.given_up) == (1, datetime.fromtimestamp(machine.now, UTC), None)


def test_its_words_and_those_of_others_are_written_whatever_the_terminal_of_up_is(machine: Machine) -> None:
    """A letter that could not be written would end the keeper, of which nothing is heard then."""
    server = running_server(machine.home)
    assert server is not None
    inherited = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", "from deployments.local.keeper import _say; _say('╭─ \\udcff')"],
        env=process_environment(server, machine.home, inherited, "spaceport:secret"),
        cwd=REPOSITORY,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().endswith("╭─ \\udcff\n")


def test_what_was_stopped_stays_so(machine: Machine) -> None:
    kill(PAGES, machine.folder)
    machine.look()
    assert machine.started == []
    start(PAGES, SLEEPER, machine.folder, os.environ)
    stop(PAGES, machine.folder, 0.0)
    machine.look()
    assert machine.started == []


def test_nothing_is_started_while_a_command_is_at_work(machine: Machine) -> None:
    machine.lose_pages()
    with alone(machine.home):
        machine.look()
        with unless_at_work(machine.home) as free:
            assert not free
    assert machine.started == []
    machine.look()
    assert machine.started == [PAGES]


def test_a_start_that_meets_another_command_is_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.lose_pages()

    def busy(name: str) -> str | None:
        raise BlockingIOError

    with monkeypatch.context() as patch:
        patch.setattr(machine.keeper, "_start", busy)
        for _ in range(2 * len(PAUSES_SECONDS)):
            machine.look(1.0)
    assert read_kept(machine.home) == {}
    machine.look()
    assert machine.started == [PAGES]


def test_what_cannot_start_is_given_up_with_its_last_words(machine: Machine) -> None:
    machine.command = BROKEN
    machine.lose_pages()
    for tries, pause in enumerate(PAUSES_SECONDS):
        eventually(lambda: died(PAGES, machine.folder), "end of the pages")
        if pause:
            machine.look()
            machine.look(pause - 1.0)
        assert len(machine.started) == tries
        machine.look(1.0)
    eventually(lambda: died(PAGES, machine.folder), "end of the pages")
    machine.look()
    assert read_kept(machine.home)[PAGES].given_up == "No module named prefect"
    assert f"died again after {len(PAUSES_SECONDS)} starts: No module named prefect; its log: " in machine.status()
    for _ in range(5):
        machine.look(1000.0)
    assert len(machine.started) == len(PAUSES_SECONDS)

    machine.command = SLEEPER
    start(PAGES, SLEEPER, machine.folder, os.environ)  # what `up` does
    machine.look()
    assert read_kept(machine.home)[PAGES].given_up is None
    machine.lose_pages()
    machine.look()
    assert len(machine.started) == len(PAUSES_SECONDS) + 1, "its tries begin anew"


def test_a_start_that_is_refused_is_given_up_too(machine: Machine) -> None:
    machine.refusal = "There is no room."
    machine.lose_pages()
    for pause in PAUSES_SECONDS:
        machine.look()
        machine.look(pause)
    machine.look(1000.0)
    assert len(machine.started) == len(PAUSES_SECONDS)
    assert read_kept(machine.home)[PAGES].given_up == "There is no room."


def test_a_process_that_worked_for_a_while_has_all_its_tries_again(machine: Machine) -> None:
    for _ in range(2 * len(PAUSES_SECONDS)):
        machine.lose_pages()
        machine.look()
        started = find(PAGES, machine.folder)
        assert started is not None
        machine.now = started.created_at + STEADY_SECONDS
        machine.look()
    assert len(machine.started) == 2 * len(PAUSES_SECONDS)
    assert read_kept(machine.home)[PAGES].restarts == 2 * len(PAUSES_SECONDS)


@pytest.mark.parametrize("trouble", [OSError("full"), psutil.AccessDenied(7), KeyError("a fault of ours")])
def test_a_look_that_fails_is_not_the_last_one(
    trouble: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = 0
    again, over = threading.Event(), threading.Event()

    def look(self: Keeper, now: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise trouble
        again.set()
        over.wait()  # the thread lives as long as the tests

    monkeypatch.setattr(Keeper, "look", look)
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    keeper.keep(tmp_path, 0o077)
    assert again.wait(STALL_SECONDS)
    assert f"the keeper: {type(trouble).__name__}: " in capsys.readouterr().out
