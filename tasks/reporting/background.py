"""Writes that must not hold up a stage: the newest of each kind is done by a thread, at most so often."""

import contextvars
import logging
import threading
import time
from collections.abc import Callable

from tasks.reporting.progress import run_logger

CLOSE_SECONDS = 5.0


class BackgroundWriter:
    """Does what it is given, in a thread of its own; of several writes of one name only the newest.

    A write that fails is reported once, for the first of them, and whoever gave it never hears of it: what is written
    here is for people to look at, and a stage does not fail for that.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._pending: dict[str, tuple[Callable[[], None], float]] = {}
        self._not_before: dict[str, float] = {}  # time.monotonic()
        self._closing = False
        self._failed = False
        # The thread sees Prefect's run, client settings and logger as whoever starts it does.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="dashboard", daemon=True)
        self._thread.start()

    def put(self, name: str, write: Callable[[], None], interval_seconds: float) -> None:
        """Do `write` soon, but not within the interval after the last one of that name."""
        with self._condition:
            self._pending[name] = (write, interval_seconds)
            self._condition.notify()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Do what is left at once; what is not done in time, as when a server is gone, is left undone."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (due := self._next()) is not None:
            for name, (write, interval_seconds) in due.items():
                try:
                    write()
                except Exception as error:  # noqa: BLE001 - whatever it is, the stage goes on
                    self._report(name, error)
                self._not_before[name] = time.monotonic() + interval_seconds

    def _next(self) -> dict[str, tuple[Callable[[], None], float]] | None:
        """Wait for writes that are due; None when all is done and the writer is closed."""
        with self._condition:
            while True:
                now = time.monotonic()
                waits = {name: self._not_before.get(name, now) - now for name in self._pending}
                due = [name for name, wait in waits.items() if wait <= 0 or self._closing]
                if due:
                    return {name: self._pending.pop(name) for name in due}
                if self._closing:
                    return None
                self._condition.wait(min(waits.values(), default=None))

    def _report(self, name: str, error: Exception) -> None:
        level = logging.DEBUG if self._failed else logging.WARNING
        self._failed = True
        run_logger().log(level, "%s on the dashboard could not be updated (%s: %s)", name, type(error).__name__, error)
