"""Running the worker: its own process, because pycolmap's native code can abort and cannot always be interrupted.

The worker lives no longer than this process: it holds the reading end of a pipe, and kills its process group when the
writing end is gone, however this process ended.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.core import errors
from tasks.core.errors import SfmCrashError, SpaceportError, StageError
from tasks.core.machine_memory import oom_kills
from tasks.core.measurements import SfmSection
from tasks.core.progress import ProgressCallback
from tasks.core.sfm.endings import ending
from tasks.core.sfm.job import ANSWER_FILE, DATABASE_FILE, LOG_FILE, Answer, Job
from tasks.core.sfm.kept_database import keep
from tasks.core.sfm.log import ProgressLog, last_words
from tasks.core.storage.disk import disk_full, free_bytes
from tasks.core.storage.workspace import CheckpointPlace

ROOT = Path(__file__).resolve().parents[3]  # holds the package `tasks`; the worker starts there
POLL_SECONDS = 0.1
CRASHES = ("SfmCrashError", "StageError")  # of a process that the worker had started; the log has its words
LEAST_FREE_BYTES = 4 * 2**20  # a disk with less than that has run full


def run_worker(job: Job, on_progress: ProgressCallback, kept: CheckpointPlace | None = None) -> SfmSection:
    """Run the job in a process of its own and return what it measured.

    Finished features and matches are put into `kept`.

    Raises:
        SpaceportError: the class and the message of what the worker raised on purpose.
        DiskFullError: it failed otherwise, and the disk is full.
        OutOfMemoryError: the system killed it for want of memory.
        SfmCrashError: a signal of its native code ended it; the message holds its last log lines.
        StageError: a Python exception ended it, whose words are in the message.
    """
    job_file = job.work / "job.json"
    job_file.write_text(job.model_dump_json(), encoding="utf-8")
    log_path = job.out / LOG_FILE
    command = [sys.executable, "-m", "tasks.core.sfm.worker", str(job_file)]
    oom_kills_before = oom_kills()
    with log_path.open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _follow(worker, ProgressLog(log_path, on_progress), lambda: _keep_database(job, kept))
    finally:
        _end(worker)
    answer_file, answer = job.work / ANSWER_FILE, Answer()
    if worker.returncode == 0 and answer_file.is_file():
        answer = Answer.model_validate_json(answer_file.read_text(encoding="utf-8"))
    if answer.section is not None:
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


def _follow(worker: subprocess.Popen[bytes], log: ProgressLog, keep: Callable[[], None]) -> None:
    while worker.poll() is None:
        time.sleep(POLL_SECONDS)
        keep()  # before reporting: a listener may end the run
        log.report_news()
    log.report_news()


def _keep_database(job: Job, kept: CheckpointPlace | None) -> None:
    finished = job.work / DATABASE_FILE
    if kept is not None and finished.is_file():
        keep(finished, kept)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker and what it started, if anything is left."""
    if worker.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended between the question and the signal
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    if worker.stdin is not None:
        worker.stdin.close()


def _told(name: str, message: str) -> SpaceportError:
    """The error that the worker raised, by its class's name."""
    kind = getattr(errors, name, SfmCrashError)
    assert issubclass(kind, SpaceportError)
    return kind(message)
