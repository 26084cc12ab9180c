"""Processes that run pycolmap: their jobs and answers, the frame of their programs, and errors for how they end.

Each is a program `python -m <module> job.json`, whose parent is process.py. Its log and tracebacks go to stderr, which
is the stage's log. The answer is a file, written last.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import OutOfMemoryError, SfmCrashError, SpaceportError, StageError
from tasks.core.machine_memory import available_memory_bytes, oom_kills
from tasks.core.measurements import SfmSection
from tasks.core.sfm.options import SfmOptions
from tasks.core.storage.disk import watching_disk

logger = logging.getLogger(__name__)

LOG_FILE = "sfm.log"
CAMERAS_MODEL = "sparse/0"  # of found cameras, in COLMAP's format; the cameras are those of the photos, with distortion
OVERLAY_FILE = "unchanging.npz"  # masks of what never changes in the photos, by name; absent where everything does
WORK_FOLDER = ".work"  # database and intermediate models, removed at the end
ANSWER_FILE = "answer.json"
PLAN_FILE = "undistort.npz"
DATABASE_FILE = "database.db"  # features of all photos, and matches so far, from which a later run can continue
PART_ENDING = ".part.zip"  # of files with the cameras of a part of many photos, beside the database
KEPT_PARTS_FOLDER = "kept-parts"  # such files of an earlier run that was interrupted
KEPT_DATABASE_FILE = "kept-database.db"  # the same of an earlier run that was interrupted
LESS_MEMORY = "lower sfm.max_features_image_size or sfm.max_features, close other programs, or take a larger machine"


class Job(BaseModel):
    """One call of a worker. All paths are absolute."""

    model_config = ConfigDict(frozen=True)

    program: ClassVar[str]  # the module that does the job: `python -m <program> job.json`

    source: Path  # the photos stage's folder, or a user's COLMAP folder
    out: Path  # receives the result

    @property
    def work(self) -> Path:
        """Folder for everything that is not kept."""
        return self.out / WORK_FOLDER


class CamerasJob(Job):
    """Find the cameras of a photo set."""

    program: ClassVar[str] = "tasks.core.sfm.pipeline"

    options: SfmOptions


class SceneJob(Job):
    """Make a scene of found cameras."""

    program: ClassVar[str] = "tasks.core.sfm.scene_writer"

    cameras: Path  # what a CamerasJob has made of `source`
    image_size: int  # px, longest side of the undistorted images


class ImportJob(Job):
    """Make a scene of a user's own COLMAP model."""

    program: ClassVar[str] = "tasks.core.sfm.importer"

    image_size: int  # px, longest side of the undistorted images


class Answer(BaseModel):
    """What was measured, or an error of tasks.core.errors by name, or the text of any other exception.

    Without any of them, the job is done and measures nothing.
    """

    model_config = ConfigDict(frozen=True)

    section: SfmSection | None = None
    error: str | None = None
    message: str = ""


def how_it_ended(returncode: int) -> str:
    """Return how a process ended in words that follow its name."""
    return f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with status {returncode}"


def ending(process: str, returncode: int, oom_kills_before: int | None, more: str) -> StageError:
    """The error for a process that ended without a result.

    Args:
        process: its name, at the beginning of the sentence.
        returncode: as in subprocess, negative for a signal.
        oom_kills_before: `oom_kills()` when it began.
        more: sentences to add.

    Returns:
        OutOfMemoryError if the system killed it for want of memory, or if the system does not count such kills and
        SIGKILL ended it; SfmCrashError for any other signal, which native code may raise by chance or every time; a
        plain StageError for an exit status, which is how Python ends with an exception.
    """
    how = f"{process} {how_it_ended(returncode)}"
    if returncode == -signal.SIGKILL and (oom_kills_before is None or oom_kills() != oom_kills_before):
        return out_of_memory(f"{how}, as the system does when memory runs out", more)
    return (SfmCrashError if returncode < 0 else StageError)(f"{how}. {more}".rstrip())


def out_of_memory(how: str, more: str = "") -> OutOfMemoryError:
    """The error for want of memory, with a way out. `how`: a sentence without its full stop."""
    free = available_memory_bytes() / 1e9
    return OutOfMemoryError(f"{how} ({free:.1f} GB are free now): {LESS_MEMORY}. {more}".rstrip())


AnyJob = TypeVar("AnyJob", bound=Job)


def work(kind: type[AnyJob], do: Callable[[AnyJob], SfmSection | None]) -> None:
    """Do the job of the command line and write the answer.

    The answer is what `do` measured, an error raised on purpose, or the text of any other exception.
    """
    import pycolmap  # not at the top: the stage's own process makes jobs and never loads it

    threading.Thread(target=_end_with_parent, daemon=True).start()
    pycolmap.logging.logtostderr = True  # and not to a file of its own in the system's folder for temporary files
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    job = kind.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        answer = Answer(section=_done(job, do))
    except SpaceportError as error:
        answer = Answer(error=type(error).__name__, message=str(error))
    except Exception as error:  # passed on as text: the parent adds that it would happen again
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
    """Kill this process group when the parent has ended; only the parent holds the other end of stdin."""
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)
