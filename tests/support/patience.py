"""Waiting that follows progress, not the clock: a wait lasts as long as anything moves, however slow the machine.

A wait fails when nothing has moved for STALL_SECONDS. What counts as a move is the wait's own choice: a state, a size,
or the processor time that a process has used.
"""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psutil

STALL_SECONDS = 300.0  # a hundred times what the slowest single move takes on a quiet machine
POLL_SECONDS = 0.1

T = TypeVar("T")


def is_alive(process: psutil.Process) -> bool:
    """Whether it still does something: a zombie only waits for its parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def nothing() -> object:
    """For waits that can see nothing but the end: one move, short on any machine."""
    return None


class Patience:
    """Of one wait."""

    def __init__(self, what: str, moves: Callable[[], object] = nothing, poll_seconds: float = POLL_SECONDS) -> None:
        """`what` is waited for; `moves` returns something that differs whenever there has been progress."""
        self._what, self._moves, self._poll_seconds = what, moves, poll_seconds
        self._seen = moves()
        self._moved_at = time.monotonic()

    def wait(self) -> None:
        """Sleep for one poll; an AssertionError when nothing has moved for too long."""
        time.sleep(self._poll_seconds)
        if time.monotonic() - self._moved_at < 1:  # looking at every poll would cost more than what is waited for
            return
        seen = self._moves()
        if seen != self._seen:
            self._seen, self._moved_at = seen, time.monotonic()
        stalled = time.monotonic() - self._moved_at
        assert stalled < STALL_SECONDS, f"no {self._what}: nothing has moved for {stalled:.0f} s, the last was {seen}"


def eventually(
    look: Callable[[], T | None], what: str, moves: Callable[[], object] = nothing, poll_seconds: float = POLL_SECONDS
) -> T:
    """The first true answer of `look`."""
    patience = Patience(what, moves, poll_seconds)
    while not (found := look()):
        patience.wait()
    return found


def work_of(*pids: int) -> int:
    """Whole seconds of processor time that processes and all that they have started have used so far.

    A process that hangs uses none, and one that only waits for others uses less than a second in STALL_SECONDS.
    """
    seconds = 0.0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    seconds += sum(each.cpu_times()[:4])  # its own, and of its children that have ended
    return int(seconds)


def ended(process: subprocess.Popen[Any], what: str) -> int:
    """The exit status of a process, which is waited for as long as it works."""
    eventually(lambda: process.poll() is not None, f"end of {what}", lambda: work_of(process.pid))
    return int(process.returncode)


def finished(command: Sequence[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with both outputs as text, for as long as the command works; the exit status is the caller's."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        patience = Patience(f"end of {command}", lambda: work_of(process.pid))
        try:
            while True:
                try:
                    stdout, stderr = process.communicate(timeout=POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    patience.wait()
                else:
                    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
        except BaseException:
            for each in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.kill()
            raise
