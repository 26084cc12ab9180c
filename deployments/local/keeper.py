"""Restart a worker or the pages' server after it has died. `spaceport up`'s server does this while it runs.

A process that keeps dying is given up after some tries, and `spaceport status` says so. A process that `down` has
stopped no longer has a record, and stays stopped. The keeper does nothing while an `up` or a `down` is in progress
(`unless_at_work`).

    <home>/up/kept.json     what was started again since the server was started
    python -m deployments.local.keeper NAME     starts that process, unless it runs; as a client of the server
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from deployments.local.processes import died, find, last_lines
from deployments.local.state import SERVER, folder_of, running_server, unless_at_work
from tasks.core.errors import SpaceportError
from tasks.core.paths import write_private
from tasks.running.settings import Settings

LOOK_SECONDS = 2.0
PAUSES_SECONDS = (0.0, 5.0, 15.0, 45.0)  # before each consecutive try; after the last one the process is given up
STEADY_SECONDS = 60.0  # a process that lived this long has started successfully
START_SECONDS = 60  # importing Prefect takes some of them on a busy machine
AT_WORK = 3  # exit status: an `up` or a `down` is at work


class Kept(BaseModel):
    """The keeper's record of one process."""

    model_config = ConfigDict(frozen=True)

    restarts: int = 0
    last: datetime | None = None
    given_up: str | None = None  # the reason


RECORD = TypeAdapter(dict[str, Kept])


@dataclass
class _Tries:
    """Consecutive tries for one process."""

    made: int = 0
    due: float | None = None  # when the next one is; None while the process lives


class Keeper:
    """Watches the processes of one home. Clock and start function are parameters, so that tests take no time."""

    def __init__(self, home: Path, start: Callable[[str], str | None]) -> None:
        """`start` starts a process and returns None, or the reason why it cannot; it may raise BlockingIOError."""
        self._home, self._folder, self._start = home, folder_of(home), start
        self._tries: dict[str, _Tries] = {}
        self._kept: dict[str, Kept] = {}

    def look(self, now: float) -> None:
        """Start what has died and is due, at `now` in seconds since the epoch."""
        with unless_at_work(self._home) as free:
            server = running_server(self._home) if free else None
            names = [] if server is None else [name for name in server.processes if name != SERVER]
            dead = [name for name in names if self._is_due(name, now)]
        for name in dead:  # `up` and `down` may be waiting for their locks
            self._start_again(name, now)

    def _is_due(self, name: str, now: float) -> bool:
        tries = self._tries.setdefault(name, _Tries())
        found = find(name, self._folder)
        if found is not None:
            given_up = self._kept.get(name, Kept()).given_up
            if given_up or now - found.created_at >= STEADY_SECONDS:
                tries.made = 0
            if given_up:  # a person has started it
                self._note(name, given_up=None)
            tries.due = None
            return False
        if not died(name, self._folder) or self._kept.get(name, Kept()).given_up:
            return False
        if tries.due is None:
            if tries.made == len(PAUSES_SECONDS):
                self._note(name, given_up=last_lines(self._folder, name) or "it said nothing")
                return False
            tries.due = now + PAUSES_SECONDS[tries.made]
        return now >= tries.due

    def _start_again(self, name: str, now: float) -> None:
        tries = self._tries[name]
        try:
            trouble = self._start(name)
        except BlockingIOError:  # another command is in progress and starts what is missing
            return
        tries.made += 1
        tries.due = None
        _say(f"{name} had died; " + (f"it cannot be started again: {trouble}" if trouble else "it is started again"))
        if trouble and tries.made == len(PAUSES_SECONDS):
            self._note(name, given_up=trouble)
        elif not trouble:
            self._note(name, restarts=self._kept.get(name, Kept()).restarts + 1, last=datetime.fromtimestamp(now, UTC))

    def _note(self, name: str, **changes: object) -> None:
        self._kept[name] = self._kept.get(name, Kept()).model_copy(update=changes)
        if reason := changes.get("given_up"):
            _say(f"{name} is given up: {reason}")
        write_private(_record(self._home), RECORD.dump_json(self._kept))


def read_kept(home: Path) -> dict[str, Kept]:
    """Read the records of restarted processes, by name."""
    try:
        return RECORD.validate_json(_record(home).read_bytes())
    except (FileNotFoundError, ValidationError):  # it is only for display
        return {}


def forget_kept(home: Path) -> None:
    """Remove the records, before a server starts and after it was taken down."""
    _record(home).unlink(missing_ok=True)


def keep(home: Path, umask: int) -> None:
    """Watch in a thread for as long as this process lives. `umask` is for the processes that it starts."""

    def start(name: str) -> str | None:
        command = [sys.executable, "-m", "deployments.local.keeper", name]
        done = subprocess.run(command, capture_output=True, text=True, umask=umask, cwd=folder_of(home))
        if done.returncode == AT_WORK:
            raise BlockingIOError
        if done.returncode == -signal.SIGALRM:
            return f"it took longer than {START_SECONDS} s"
        lines = done.stderr.strip().splitlines()
        return None if done.returncode == 0 else lines[-1] if lines else f"exit status {done.returncode}"

    def look_on() -> None:
        keeper = Keeper(home, start)
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                keeper.look(time.time())
            except Exception as error:  # noqa: BLE001 - a full disk, a damaged record: the next round may succeed
                _say(f"the keeper: {type(error).__name__}: {error}")

    threading.Thread(target=look_on, name="keeper", daemon=True).start()


def main(name: str) -> int:
    """Start the process of that name, unless it runs. Returns the exit status."""
    from deployments.local.server import start_again

    signal.alarm(START_SECONDS)  # ends this process, also while the server is stopped
    try:
        return 0 if start_again(Settings().home, name) else AT_WORK
    except SpaceportError as error:
        print(error, file=sys.stderr)
        return error.exit_status


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", flush=True)


def _record(home: Path) -> Path:
    return folder_of(home) / "kept.json"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
