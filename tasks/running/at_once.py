"""Tasks of one run at the same time, each in a thread that waits for a run of its own.

Only a run's main thread receives the signal that ends it. So it tells the threads, which would otherwise wait for hours
and keep the process from ending.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture

PATIENCE_SECONDS = 20.0  # as in interruption.py: workers kill what has not ended 30 s after SIGTERM

T = TypeVar("T")

_ending: ContextVar[threading.Event | None] = ContextVar("ending", default=None)


def results_at_once(submit: Sequence[Callable[[], PrefectFuture[T]]]) -> list[T]:
    """Submit all tasks, wait until all have ended, and return their results in order.

    If some fail, the others go on, because the next attempt finds their outputs; then the first error is raised. If
    this thread is interrupted, as by a cancellation, all waits of `pause` in the tasks end with TerminationSignal.
    """
    ending = threading.Event()
    token = _ending.set(ending)  # each task's thread has a copy of this context
    futures: list[PrefectFuture[T]] = []
    results: list[T] = []
    errors: list[Exception] = []
    try:
        futures += [each() for each in submit]
        for future in futures:
            try:
                results.append(future.result())
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
    except BaseException:
        ending.set()
        end = time.monotonic() + PATIENCE_SECONDS
        for future in futures:
            with suppress(BaseException):
                future.wait(max(0.0, end - time.monotonic()))
        raise
    finally:
        _ending.reset(token)
    if errors:
        raise errors[0]
    return results


def pause(seconds: float, sleep: Callable[[float], None]) -> None:
    """Sleep; in a task of `results_at_once`, raise TerminationSignal as soon as the run has to end."""
    ending = _ending.get()
    if ending is None:
        sleep(seconds)
    elif ending.wait(seconds):
        raise TerminationSignal(signal.SIGTERM)
