"""Faults of a run in a terminal: what happens to the command, and how it may end."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.command import Command
from tests.faults.rounds.plan import Round
from tests.faults.rounds.proxy import Proxy
from tests.faults.rounds.small_disk import SmallDisk
from tests.support.patience import eventually, work_of

SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGHUP": signal.SIGHUP}
DONE, FAILED, REFUSED = 0, 1, 2  # exit statuses; 2: the place is wrong, name another
STATUS = {"kill -9": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130, "SIGHUP": 143}


@dataclass(frozen=True)
class Means:
    """What faults are made with; only those are there that a round needs."""

    trigger: Path
    disk: SmallDisk | None = None
    proxy: Proxy | None = None


def befall(round_: Round, command: Command, means: Means) -> int:
    """Do it, at this moment. Returns the command's exit status."""
    if round_.fault in SIGNALS:
        return command.wait() if command.is_over else command.end(SIGNALS[round_.fault])
    if round_.fault == "kill -9 of its server":
        server = command.server()
        if server is not None:
            server.kill()
        return command.wait()
    if round_.fault == "ENOSPC":
        assert means.disk is not None
        means.disk.fill()
        return _until_end(command, means.disk.make_room)
    if round_.fault == "EIO":
        means.trigger.touch()
        return _until_end(command, means.trigger.unlink)
    assert means.proxy is not None
    means.proxy.mode = round_.fault
    command.pass_time(round_.lasts_seconds)
    means.proxy.mode = None
    return command.wait()


def may_end_with(fault: str) -> tuple[int, ...]:
    """Exit statuses that are right; a fault may also come too late to change anything."""
    return (DONE, STATUS[fault]) if fault in STATUS else (DONE, FAILED, REFUSED)


def _until_end(command: Command, then: Callable[[], None]) -> int:
    eventually(lambda: command.is_over, "end of the command", lambda: work_of(command.process.pid))
    then()
    return command.wait()
