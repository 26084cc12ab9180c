"""The process that pycolmap runs in: `python -m tasks.core.sfm.worker job.json`. Its parent is process.py.

Everything it says goes to stderr, which is the stage's log. The answer is a file, written last.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from tasks.core.errors import SpaceportError
from tasks.core.sfm.importer import import_in_worker
from tasks.core.sfm.job import ANSWER_FILE, Answer, Job
from tasks.core.sfm.pipeline import reconstruct_in_worker


def main(job_file: Path) -> None:
    """Do the job; errors made on purpose become part of the answer, others a traceback in the log and status 1."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    job = Job.model_validate_json(job_file.read_text(encoding="utf-8"))
    try:
        section = reconstruct_in_worker(job) if job.kind == "reconstruct" else import_in_worker(job)
        answer = Answer(section=section)
    except SpaceportError as error:
        answer = Answer(error=type(error).__name__, message=str(error))
    (job.work / ANSWER_FILE).write_text(answer.model_dump_json(), encoding="utf-8")


def _end_with_parent() -> None:
    """Kill this process group when the parent is gone; it alone holds the other end of stdin."""
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
