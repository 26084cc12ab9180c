"""The kept log: text that others chose acts on no terminal, and long logs are not sent over and over."""

import logging
from pathlib import Path
from uuid import UUID

import pytest

from tasks.core.errors import PhotosError
from tasks.core.progress import Progress
from tasks.core.refs import RunContext
from tasks.core.storage import LocalWorkspace
from tasks.places.workspace import open_workspace
from tasks.reporting import run_log
from tasks.reporting.run_log import RunLog, log_name

RUN = UUID(int=1)
NASTY = "a\x1b]0;title\x07\x1b[2Jb\rc\u202egpj.exe\x9b31m\n2026-01-01T00:00:00.000Z INFO     all is well"


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(workspace=str(tmp_path), run="flight-1")


def log_of(context: RunContext) -> RunLog:
    return RunLog("sfm", context, RUN, lambda: None)


def kept(context: RunContext) -> str:
    return (open_workspace(context.workspace).read_run_file(context.run, log_name("sfm")) or b"").decode()


@pytest.mark.parametrize("way", ["record", "progress", "our error", "another error"])
def test_no_name_acts_on_the_terminal_that_shows_the_log_or_forges_a_line(way: str, context: RunContext) -> None:
    log = log_of(context)
    if way == "record":
        log.emit(logging.makeLogRecord({"msg": "looking at %s", "args": (NASTY,), "levelname": "INFO"}))
    elif way == "progress":
        log.progress("sfm", Progress(1, 2, NASTY))
    else:
        log.failed(PhotosError(NASTY) if way == "our error" else ValueError(NASTY))
    log.write()
    lines = kept(context).splitlines()
    assert [line for line in lines if not line.startswith("    ")] == lines[:1]
    assert lines[-1] == "    2026-01-01T00:00:00.000Z INFO     all is well"
    assert r"a\x1b]0;title\x07\x1b[2Jb\rc\u202egpj.exe\x9b31m" in kept(context)
    assert all(character.isprintable() for line in lines for character in line)


def test_a_log_with_nothing_new_is_not_sent_again(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(LocalWorkspace, "write_run_file", lambda self, run, name, content: sent.append(content))
    log = log_of(context)
    log.write()
    assert sent == [], "an empty log is none"
    log.progress("sfm", Progress(1, 2))
    for _ in range(3):
        log.write()
    assert len(sent) == 1


def test_the_longer_a_log_the_longer_the_pause(context: RunContext) -> None:
    """The bytes that are sent grow with the time, not with its square."""
    log, pauses, sent, seconds = log_of(context), [], 0, 0.0
    while seconds < 36_000:  # ten hours at 100 bytes a second
        pause = log.pause_seconds
        pauses.append(pause)
        log.progress("sfm", Progress(1, 2, "x" * int(100 * pause)))
        seconds += pause
        sent += int(100 * seconds)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (run_log.LEAST_PAUSE_SECONDS, pytest.approx(100 * seconds / 2**18 * 30, rel=0.05))
    assert max(pauses) <= run_log.MOST_PAUSE_SECONDS
    assert sent / seconds < 1.1 * run_log.BYTES_PER_PAUSE / run_log.LEAST_PAUSE_SECONDS
    assert sent < 0.2 * 100 * seconds * seconds / run_log.LEAST_PAUSE_SECONDS / 2, "less than a fifth of before"


def test_an_earlier_attempts_log_counts_for_the_pause(context: RunContext) -> None:
    open_workspace(context.workspace).write_run_file(context.run, log_name("sfm"), b"x" * 2 * run_log.BYTES_PER_PAUSE)
    log = log_of(context)
    log.progress("sfm", Progress(1, 2))
    log.write()
    assert log.pause_seconds == pytest.approx(2 * run_log.LEAST_PAUSE_SECONDS, rel=0.01)
