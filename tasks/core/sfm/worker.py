"""The frame of the processes that pycolmap runs in: `python -m <module> job.json`. Their parent is process.py.

A process's log and tracebacks go to stderr, which is the stage's log. The answer is a file, written last.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pycolmap

from tasks.core.errors import SpaceportError
from tasks.core.measurements import SfmSection
from tasks.core.sfm.endings import out_of_memory
from tasks.core.sfm.job import ANSWER_FILE, Answer, Job
from tasks.core.storage.disk import watching_disk

logger = logging.getLogger(__name__)

AnyJob = TypeVar("AnyJob", bound=Job)


def work(kind: type[AnyJob], do: Callable[[AnyJob], SfmSection | None]) -> None:
    """Do the job of the command line and write the answer.

    It is what `do` measured, an error made on purpose, or the words of any other exception.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pycolmap.logging.logtostderr = True  # and not to a file of its own in the system's folder for temporary files
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    job = kind.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        answer = Answer(section=_done(job, do))
    except SpaceportError as error:
        answer = Answer(error=type(error).__name__, message=str(error))
    except Exception as error:  # handed over in words: the parent says that it would happen again
        logger.exception("the worker failed")
        answer = Answer(message=f"{type(error).__name__}: {error}")
    (job.work / ANSWER_FILE).write_text(answer.model_dump_json(), encoding="utf-8")


def _done(job: AnyJob, do: Callable[[AnyJob], SfmSection | None]) -> SfmSection | None:
    try:
        with watching_disk(job.out):
            return do(job)
    except MemoryError as error:  # pycolmap's std::bad_alloc as well
        raise out_of_memory("Memory did not suffice for structure from motion") from error


def _end_with_parent() -> None:
    """Kill this process group when the parent is gone; it alone holds the other end of stdin."""
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)
