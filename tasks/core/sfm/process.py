"""Running the worker: its own process, because pycolmap's native code can abort and cannot always be interrupted.

The worker lives no longer than this process: it holds the reading end of a pipe, and kills its process group when the
writing end is gone, however this process ended.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.core import errors
from tasks.core.errors import SfmCrashError, SpaceportError
from tasks.core.measurements import SfmSection
from tasks.core.progress import ProgressCallback
from tasks.core.sfm.job import ANSWER_FILE, DATABASE_FILE, LOG_FILE, Answer, Job
from tasks.core.sfm.log import ProgressLog, last_words
from tasks.core.storage.checkpoint_place import CheckpointPlace
from tasks.core.storage.disk import disk_full, free_bytes

ROOT = Path(__file__).resolve().parents[3]  # holds the package `tasks`; the worker starts there
POLL_SECONDS = 0.1
LEAST_FREE_BYTES = 4 * 2**20  # a disk with less than that has run full


def run_worker(job: Job, on_progress: ProgressCallback, kept: CheckpointPlace | None = None) -> SfmSection:
    """Run the job in a process of its own and return what it measured.

    Finished features and matches are put into `kept`.

    Raises:
        SpaceportError: the class and the message of what the worker raised on purpose.
        DiskFullError: it ended without an answer, and the disk is full.
        SfmCrashError: it ended without an answer; the message holds its last log lines.
    """
    job_file = job.work / "job.json"
    job_file.write_text(job.model_dump_json(), encoding="utf-8")
    log_path = job.out / LOG_FILE
    command = [sys.executable, "-m", "tasks.core.sfm.worker", str(job_file)]
    with log_path.open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _follow(worker, ProgressLog(log_path, on_progress), lambda: _keep_database(job, kept))
    finally:
        _end(worker)
    answer_file = job.work / ANSWER_FILE
    if worker.returncode == 0 and answer_file.is_file():
        return _result(Answer.model_validate_json(answer_file.read_text(encoding="utf-8")))
    if free_bytes(job.work) < LEAST_FREE_BYTES:  # native code aborts when its database cannot grow
        raise disk_full(job.work)
    raise _crash(worker.returncode, log_path)


def _follow(worker: subprocess.Popen[bytes], log: ProgressLog, keep: Callable[[], None]) -> None:
    while worker.poll() is None:
        time.sleep(POLL_SECONDS)
        keep()  # before anybody is told, who may end the run
        log.report_news()
    log.report_news()


def _keep_database(job: Job, kept: CheckpointPlace | None) -> None:
    finished = job.work / DATABASE_FILE
    if kept is not None and finished.is_file():
        with kept.scratch() as scratch:
            shutil.move(finished, scratch / DATABASE_FILE)
            kept.put(scratch / DATABASE_FILE)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Kill the worker and what it started, if anything is left."""
    if worker.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended between the question and the signal
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    if worker.stdin is not None:
        worker.stdin.close()


def _result(answer: Answer) -> SfmSection:
    if answer.section is not None:
        return answer.section
    kind = getattr(errors, answer.error or "", SfmCrashError)
    assert issubclass(kind, SpaceportError)
    raise kind(answer.message)


def _crash(returncode: int, log_path: Path) -> SfmCrashError:
    how = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with status {returncode}"
    if returncode == -signal.SIGKILL:
        how += " (often: out of memory; lower sfm.max_features_image_size)"
    return SfmCrashError(f"The structure-from-motion process {how}. Its last words: {last_words(log_path)}")
