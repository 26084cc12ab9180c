"""Work that a signal must not stop in the middle.

Prefect turns SIGTERM, and Python turns Ctrl-C, into an exception between any two instructions of the main thread. Work
that has to reach a consistent state before it ends therefore runs in another thread, and the waiting thread receives
the exception. (A signal handler of our own would not work: Prefect acknowledges a cancellation only while its own
handler is installed.)
"""

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

APART = "apart"  # name of the threads
PATIENCE_SECONDS = 20.0  # Prefect's workers kill what has not ended 30 s after SIGTERM, as ECS does

T = TypeVar("T")


def run_apart(work: Callable[[], T], interrupt: Callable[[], None], patience_seconds: float = PATIENCE_SECONDS) -> T:
    """Do `work` in a thread with a copy of this thread's context; return its result or raise its exception.

    If this thread is interrupted while it waits, it calls `interrupt`, which should make the work end soon. It then
    waits for up to `patience_seconds`, despite further interruptions, and raises the first interruption.
    """
    result: Future[T] = Future()

    def body() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            result.set_exception(error)

    # A daemon thread, so that work that ignores `interrupt` cannot hold up the end of the process.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(body,), name=APART, daemon=True)
    thread.start()
    try:
        return result.result()
    except BaseException as error:
        if result.done() and result.exception() is error:
            raise
        interrupt()
        end = time.monotonic() + patience_seconds
        while thread.is_alive() and time.monotonic() < end:
            with suppress(BaseException):
                thread.join(max(0.0, end - time.monotonic()))
        raise


def works_apart() -> bool:
    """Whether work of `run_apart` has not ended yet."""
    return any(thread.name == APART for thread in threading.enumerate())
