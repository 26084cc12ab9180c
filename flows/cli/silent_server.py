"""Ends of a command whose Prefect server says nothing any more: one sentence, and no wait for what never comes.

Prefect's client is patient: it waits a minute for an answer and asks six times. A run should have that patience. A
command that a signal ends, or that has given up, should not: nothing that it holds back could be delivered.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import psutil

from flows.cli.connection import server_address, server_answers
from tasks.running.interruption import works_apart

LOOK_SECONDS = 2.0


def sentence_for(error: BaseException) -> str | None:
    """What an error of a request to the Prefect server means; None for any other error."""
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
    """From now on, end this process with `status` when its server is silent and no stage saves its work any more."""
    if server_address() is not None:
        threading.Thread(target=_watch, args=(status, server_answers), name="silence", daemon=True).start()


def _watch(status: int, answers: Callable[[], bool]) -> None:
    while answers() or works_apart():
        time.sleep(LOOK_SECONDS)
    end_at_once(status)


def end_at_once(status: int) -> None:
    """End this process and all that it started, without Prefect's last words, which would take minutes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(status)
