"""End a command: print errors as one sentence, set the exit status, handle signals, and wait for no silent server.

Prefect's client waits a minute for an answer and asks six times. A run should be that patient. A command that was
ended by a signal, or has given up, should not: the events that it has queued could not be delivered anyway.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import httpx
import psutil
from rich.console import Console

from flows.cli.connection import server_address, server_answers
from flows.cli.terminal import plain
from tasks.core.errors import ServerError, SpaceportError
from tasks.running.interruption import works_apart

LOOK_SECONDS = 2.0

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Set the exit status when the block ends: 0 done, 2 the input or the command is wrong, 1 anything else.

    Spaceport's errors are printed as one sentence on standard error, without a stack trace. A signal ends the command
    cleanly.
    """
    errors = Console(stderr=True, emoji=False)
    interrupted = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if not interrupted.is_set():
            errors.print("cancelled; what was finished stays in the workspace")
            _say_no_more(2)  # otherwise Prefect's engine logs many lines about the interrupt
            end_when_silent(130)
        interrupted.set()
        signal.default_int_handler(number, frame)

    def on_termination(number: int, frame: FrameType | None) -> None:
        """End the command. During a flow, Prefect's own handler runs first and reports to the server."""
        if not interrupted.is_set():
            errors.print("ended by SIGTERM; what was finished stays in the workspace")
            _say_no_more(2)
            end_when_silent(128 + number)
        interrupted.set()
        sys.exit(128 + number)

    def on_hangup(number: int, frame: FrameType | None) -> None:
        """End as on SIGTERM, but print nothing: the terminal is closed, so writing to it would fail."""
        _say_no_more(1, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    handlers: dict[int, Handler] = {signal.SIGINT: on_interrupt, signal.SIGTERM: on_termination}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # it is ignored under nohup
        handlers[signal.SIGHUP] = on_hangup
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    except SpaceportError as error:
        errors.print(f"[bold red]error[/] {plain(error)}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except (KeyboardInterrupt, Exception) as error:
        if not interrupted.is_set():
            if (sentence := sentence_for(error)) is None:
                raise
            errors.print(f"[bold red]error[/] {plain(sentence)}", highlight=False, soft_wrap=True)
            end_at_once(ServerError.exit_status)
        sys.exit(130)  # the flow was ended by the interrupt, or by Prefect's failed call to its server
    finally:
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)


def _say_no_more(*descriptors: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)


def sentence_for(error: BaseException) -> str | None:
    """Sentence for an error of a request to the Prefect server; None for any other error."""
    url = server_address()
    if url is None or not isinstance(error, httpx.HTTPError):
        return None
    if isinstance(error, httpx.HTTPStatusError):  # Prefect's own error is one
        answer = error.response
        return (
            f"The Prefect server at {url} refused a request with status {answer.status_code} "
            f"({answer.request.method} {answer.request.url.path}): {_first_line(answer)}"
        )
    return (
        f"The Prefect server at {url} does not answer any more ({type(error).__name__}). What was finished is in the "
        "workspace; once the server answers, run the same command again to continue from there."
    )


def _first_line(answer: httpx.Response) -> str:
    lines = answer.text.strip().splitlines() if answer.is_closed else []
    return lines[0][:300] if lines else "without a reason"


def end_when_silent(status: int) -> None:
    """From now on, end this process with `status` as soon as its server is silent and no stage is saving its work."""
    if server_address() is not None:
        threading.Thread(target=_watch, args=(status, server_answers), name="silence", daemon=True).start()


def _watch(status: int, answers: Callable[[], bool]) -> None:
    while answers() or works_apart():
        time.sleep(LOOK_SECONDS)
    end_at_once(status)


def end_at_once(status: int) -> None:
    """End this process and its children immediately, without Prefect's shutdown, which would take minutes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(status)
