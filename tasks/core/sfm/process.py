"""Run a worker and follow its log.

A worker is a process of its own, because pycolmap's native code can abort and cannot always be interrupted. It lives no
longer than this process: it holds the reading end of a pipe, and kills its process group when the writing end is gone,
however this process ended. Its log is the only place where pycolmap reports how far it is.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tasks.core import errors
from tasks.core.errors import SfmCrashError, SpaceportError, StageError
from tasks.core.machine_memory import oom_kills
from tasks.core.measurements import SfmSection
from tasks.core.progress import Progress, ProgressCallback
from tasks.core.sfm.worker import ANSWER_FILE, LOG_FILE, Answer, Job, ending
from tasks.core.storage.disk import disk_full, free_bytes

ROOT = Path(__file__).resolve().parents[3]  # holds the package `tasks`; the worker starts there
POLL_SECONDS = 0.1
CRASHES = ("SfmCrashError", "StageError")  # of a process that the worker had started, whose messages are in the log
LEAST_FREE_BYTES = 4 * 2**20  # a disk with less than that has run full

# The worker writes "phase <name> <number of units>"; each phase owns a part of the percentage, by its share of the time
PHASES = {
    "features": (0, 45, "features in {done}/{total} photos"),
    "matching": (45, 70, "matching, block {done}/{total}"),
    "mapping": (70, 90, "placed {done}/{total} photos"),
}
WORKER_PERCENT = 90  # the rest is undistorting, after the worker has ended
PHASE = re.compile(r"phase (\w+) (\d+)")
BATCH = re.compile(r"(?:features|matching) after (\d+) (?:photos|blocks)")  # pycolmap counts each batch from one
COUNTED = re.compile(
    r"Processed file \[(?P<features>\d+)/"
    r"|Processing block \[(?P<matching>\d+)/"
    r"|\(num_reg_frames=(?P<mapping>\d+)\)"
)
GLOG_PREFIX = re.compile(r"^[IWEF]\d{8} [\d:.]+ +(\d+) ")  # level, date, time, thread
LEAST_PERCENT_FOR_ETA = 5.0
LAST_LINES = 6
LAST_LINE_CHARACTERS = 300


def run_worker(
    job: Job, on_progress: ProgressCallback, meanwhile: Callable[[], None] = lambda: None
) -> SfmSection | None:
    """Run the job in a process of its own and return what it measured, if it measures anything.

    `meanwhile` is called every POLL_SECONDS while it runs.

    Raises:
        SpaceportError: what the worker raised on purpose, with its class and message.
        DiskFullError: it failed in another way, and the disk is full.
        OutOfMemoryError: the system killed it for want of memory.
        SfmCrashError: a signal of its native code ended it; the message holds its last log lines.
        StageError: a Python exception ended it; the message contains its text.
    """
    job_file = job.work / "job.json"
    job_file.write_text(job.model_dump_json(), encoding="utf-8")
    log_path = job.out / LOG_FILE
    command = [sys.executable, "-m", job.program, str(job_file)]
    oom_kills_before = oom_kills()
    with log_path.open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _follow(worker, ProgressLog(log_path, on_progress), meanwhile)
    finally:
        _end(worker)
    answer_file, answer = job.work / ANSWER_FILE, Answer()
    if worker.returncode == 0 and answer_file.is_file():
        answer = Answer.model_validate_json(answer_file.read_text(encoding="utf-8"))
        if answer.error is None and not answer.message:
            return answer.section
    if answer.error is not None and answer.error not in CRASHES:
        raise _told(answer.error, answer.message)
    if free_bytes(job.work) < LEAST_FREE_BYTES:  # native code aborts when its database cannot grow
        raise disk_full(job.work)
    words = f"Its last words: {last_words(log_path)}"
    if answer.error is not None:
        raise _told(answer.error, f"{answer.message} {words}")
    if answer.message:
        raise StageError(
            f"The structure-from-motion process failed with {answer.message}, as it would again with these photos and "
            f"options. {words}"
        )
    raise ending("The structure-from-motion process", worker.returncode, oom_kills_before, words)


def _follow(worker: subprocess.Popen[bytes], log: "ProgressLog", meanwhile: Callable[[], None]) -> None:
    while worker.poll() is None:
        time.sleep(POLL_SECONDS)
        meanwhile()  # before reporting: a listener may end the run
        log.report_news()
    log.report_news()


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker and what it started, if anything is left."""
    if worker.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended between the question and the signal
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    if worker.stdin is not None:
        worker.stdin.close()


def _told(name: str, message: str) -> SpaceportError:
    """Return the error that the worker raised, by the name of its class."""
    kind = getattr(errors, name, SfmCrashError)
    assert issubclass(kind, SpaceportError)
    return kind(message)


class ProgressLog:
    """Turns new lines of the log into progress from 0 to 90 percent, which never decreases."""

    def __init__(self, path: Path, on_progress: ProgressCallback) -> None:
        self._path = path
        self._on_progress = on_progress
        self._read_bytes = 0
        self._phase, self._total = "features", 0
        self._before = 0  # photos or blocks of earlier batches
        self._blocks: dict[str, int] = {}  # done in this batch, by the thread that logs it: one in each process
        self._done = 0.0
        self._started = time.monotonic()

    def report_news(self) -> None:
        """Read what was added since the last call and report only the newest state."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            added = file.read()
        complete = added[: added.rfind(b"\n") + 1]
        self._read_bytes += len(complete)
        newest = self._newest(complete.decode("utf-8", errors="replace").splitlines())
        if newest is not None:
            self._on_progress(newest)

    def _newest(self, lines: Iterable[str]) -> Progress | None:
        newest = None
        for line in lines:
            if started := PHASE.search(line):
                self._phase, self._total, units = started[1], int(started[2]), 0
                self._before, self._blocks = 0, {}
            elif batch := BATCH.search(line):
                self._before, self._blocks = int(batch[1]), {}
                units = self._before
            elif (counted := COUNTED.search(line)) and counted.lastgroup == self._phase:
                units = self._before + self._in_batch(line, int(counted[counted.lastgroup]))
            else:
                continue
            begin, end, note = PHASES[self._phase]
            self._done = max(self._done, begin + (end - begin) * min(units / max(self._total, 1), 1))
            newest = Progress(self._done, 100, note.format(done=units, total=self._total) + self._time_left())
        return newest

    def _in_batch(self, line: str, number: int) -> int:
        """Return how many units of this batch are done, once a line of the log has named this one."""
        if self._phase == "features":
            return number
        thread = GLOG_PREFIX.match(line)
        begun = 1 if self._phase == "matching" else 0  # a block is named as it begins, a photo when it is placed
        self._blocks[thread[1] if thread else ""] = number - begun
        return sum(self._blocks.values())

    def _time_left(self) -> str:
        """Return the time left at the speed so far, once there is enough progress to estimate it."""
        if self._done < LEAST_PERCENT_FOR_ETA:
            return ""
        seconds = (time.monotonic() - self._started) * (100 - self._done) / self._done
        return f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"


def last_words(path: Path) -> str:
    """Return the end of the log in one line, without native stack traces."""
    lines = [GLOG_PREFIX.sub("", line).strip() for line in path.read_text("utf-8", errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(("@", "***", "(unknown)", "^"))]
    return " | ".join(said[-LAST_LINES:])[-LAST_LINE_CHARACTERS * LAST_LINES :] or "nothing."
