"""The progress of stages: passed to the run's log, throttled, and to all listeners."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect import get_run_logger
from prefect.context import TaskRunContext
from prefect.exceptions import MissingContextError

from tasks.core.progress import Progress, ProgressCallback

LOG_INTERVAL_SECONDS = 15.0

StageListener = Callable[[str, Progress], None]

_listeners: list[StageListener] = []
_listener_here: ContextVar[StageListener | None] = ContextVar("listener_here", default=None)


@contextmanager
def listening(listener: StageListener) -> Iterator[None]:
    """Call `listener(stage, progress)` for every report made in this process while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def listening_here(listener: StageListener) -> Iterator[None]:
    """Call `listener(stage, progress)` only for reports of stages that begin within the block.

    Unlike `listening`, it distinguishes between runs that share this process.
    """
    token = _listener_here.set(listener)
    try:
        yield
    finally:
        _listener_here.reset(token)


def called(stage: str) -> str:
    """Return the name of the current task run, which tells the cells of a training apart; outside of one the word."""
    task_run = TaskRunContext.get()
    return stage if task_run is None else task_run.task_run.name


def stage_progress(stage: str) -> ProgressCallback:
    """Return the progress callback for a stage's domain code.

    Every report is passed to the listeners, which do their own throttling. A line in the run's log costs milliseconds,
    so the log gets one line per LOG_INTERVAL_SECONDS, and the last one.
    """
    logged_at = -float("inf")
    here = _listener_here.get()  # read here, since domain code may report from other threads

    def report(progress: Progress) -> None:
        nonlocal logged_at
        for listener in (*_listeners, *([here] if here else [])):
            listener(stage, progress)
        now = time.monotonic()
        finished = progress.total > 0 and progress.done >= progress.total
        if finished or now - logged_at >= LOG_INTERVAL_SECONDS:
            logged_at = now
            share = f"{100 * progress.done / progress.total:.0f} %" if progress.total else "…"
            run_logger().info("%s %s %s", stage, share, progress.note, extra={"is_progress": True})

    return report


def run_logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    """Return the current Prefect run's logger, or this module's outside of one, so that `task.fn` works in tests."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)
