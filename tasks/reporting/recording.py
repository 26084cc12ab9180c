"""Record a stage while it runs: its progress in Prefect's UI, its full log in the run's folder.

A thread writes both at a bounded rate, so that they never hold up the stage.
"""

import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

from tasks.core.progress import Progress
from tasks.core.refs import RunContext
from tasks.reporting.artifacts import RunArtifacts, Shown
from tasks.reporting.progress import called, listening_here, run_logger
from tasks.reporting.run_log import LOGGERS, RunLog, outlive_reader
from tasks.running.dispatch import runs_elsewhere

# Time between two updates of one artifact. Each costs the server about 10 ms and an event of about 10 kB in its
# database, and in a long stage a few seconds change little of what people see.
UPDATE_SECONDS, MOST_UPDATE_SECONDS = 5.0, 60.0
SHARE_OF_AGE = 0.1  # of the stage's time so far
CLOSE_SECONDS = 5.0

P = ParamSpec("P")
R = TypeVar("R")


class BackgroundWriter:
    """Performs writes in a thread of its own; of several pending writes with one name, only the newest.

    The first write that fails is logged as a warning, and none raises an error: a stage does not fail because its
    display cannot be updated.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._pending: dict[str, tuple[Callable[[], None], float]] = {}
        self._not_before: dict[str, float] = {}  # time.monotonic()
        self._closing = False
        self._failed = False
        # The thread inherits the Prefect run, client settings and logger of the thread that starts it.
        context = copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="dashboard", daemon=True)
        self._thread.start()

    def put(self, name: str, write: Callable[[], None], interval_seconds: float) -> None:
        """Perform `write` soon, but not within the interval after the last write of that name."""
        with self._condition:
            self._pending[name] = (write, interval_seconds)
            self._condition.notify()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Perform the remaining writes without pauses. Drop those that take too long, as when the server is away."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (due := self._next()) is not None:
            for name, (write, interval_seconds) in due.items():
                try:
                    write()
                except Exception as error:  # noqa: BLE001 - the stage continues after any error
                    self._report(name, error)
                self._not_before[name] = time.monotonic() + interval_seconds

    def _next(self) -> dict[str, tuple[Callable[[], None], float]] | None:
        """Wait for writes that are due; None when the writer is closed and nothing remains."""
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


class Recording:
    """The artifacts and the log of one running stage."""

    def __init__(self, artifacts: RunArtifacts, writer: BackgroundWriter) -> None:
        self.stages: list[str] = []  # stages that began within this recording, if it is of a whole run
        self.failed: str | None = None  # the last of them that failed
        self._artifacts = artifacts
        self._writer = writer
        self._began_at = time.monotonic()

    def show(self, key: str, make: Callable[[], Shown | None]) -> None:
        """Show the result of `make` as an artifact. `make` is called in another thread, and only for the newest."""

        def write() -> None:
            shown = make()
            if shown is not None:
                self._artifacts.show(key, shown)

        self._writer.put(key, write, pause_seconds(time.monotonic() - self._began_at))

    def show_progress(self, stage: str, progress: Progress) -> None:
        """Show how much of the stage is done."""
        percent = min(100.0, 100 * progress.done / progress.total) if progress.total else 0.0
        self.show(f"progress-{stage}", lambda: Shown("progress", percent, f"{percent:.0f} %, {progress.note}"))


def pause_seconds(age_seconds: float) -> float:
    """Return the pause between two updates of an artifact, in a stage that has run for so long."""
    return min(max(UPDATE_SECONDS, SHARE_OF_AGE * age_seconds), MOST_UPDATE_SECONDS)


_current: ContextVar[Recording | None] = ContextVar("recording", default=None)


def current_recording() -> Recording | None:
    """Return the recording of the current stage; None outside of a Prefect run."""
    return _current.get()


@contextmanager
def recording(stage: str, context: RunContext) -> Iterator[None]:
    """Keep the stage's log and show its progress while the block runs. Does nothing outside of a Prefect run."""
    artifacts = RunArtifacts.of_this_run()
    if artifacts is None:
        yield
        return
    name = called(stage)
    if (around := _current.get()) is not None:
        around.stages.append(name)
    writer = BackgroundWriter()
    recorded = Recording(artifacts, writer)
    token = _current.set(recorded)
    try:
        with _logging_to(stage, name, context, artifacts, writer) as log:

            def listen(reporting_stage: str, progress: Progress) -> None:
                log.progress(reporting_stage, progress)
                recorded.show_progress(reporting_stage, progress)

            with listening_here(listen):
                yield
        if around is not None and around.failed == name:
            around.failed = None  # another attempt has succeeded
    except BaseException:
        if around is not None:
            around.failed = name
        raise
    finally:
        _current.reset(token)
        writer.close()


@contextmanager
def _logging_to(
    stage: str, name: str, context: RunContext, artifacts: RunArtifacts, writer: BackgroundWriter
) -> Iterator[RunLog]:
    # The stage's own run keeps its log under the stage's name. The log of the run that waits for it is short.
    of_log = f"{name}-dispatch" if runs_elsewhere(stage, context) else name

    def on_line() -> None:
        writer.put("log", log.write, log.pause_seconds)

    log = RunLog(of_log, context, artifacts.flow_run_id, on_line, artifacts.task_run_id)
    outlive_reader()
    loggers = [logging.getLogger(logger) for logger in LOGGERS]
    for logger in loggers:
        logger.addHandler(log)
    try:
        yield log
    except BaseException as error:
        log.failed(error)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(log)
        try:
            log.write()
        except Exception as error:  # noqa: BLE001 - a log that cannot be kept must not hide how the stage ended
            run_logger().warning("the log of %s could not be kept (%s)", stage, error)


def recorded(stage: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a stage's function, which takes its RunContext as `context`. Raises TypeError if it does not."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        if "context" not in signature.parameters:
            raise TypeError(f"{function.__qualname__} takes no `context`, so its log has no run to be kept with")

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with recording(stage, signature.bind(*args, **kwargs).arguments["context"]):
                return function(*args, **kwargs)

        return run

    return decorate
