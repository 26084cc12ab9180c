"""The log of one stage: the full log at `<workspace>/runs/<run>/logs/<stage>.log`, and its copy on the console."""

import logging
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from tasks.core.errors import SpaceportError
from tasks.core.progress import Progress
from tasks.core.refs import RunContext
from tasks.core.safe_names import printable_lines
from tasks.places.workspace import open_workspace

NEW_LINE, CONTINUED = "\n", "\n    "  # further lines of a message are indented
# Prefect's loggers of runs, and ours.
LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "tasks", "flows")

# Every write sends the whole log, because S3 cannot append to an object. So the pause grows with the log: 9 kB a second
# at most, until a log of 5 MB is written every ten minutes.
LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 30.0, 600.0
BYTES_PER_PAUSE = 256 * 2**10  # written after the shortest pause; twice as much waits twice as long


def log_name(stage: str) -> str:
    """The log's name in the run's folder."""
    return f"logs/{stage}.log"


class RunLog(logging.Handler):
    """Collects records of one run and every progress report, and writes them to the run's folder.

    An earlier attempt's log is continued, so that a retried stage has a single log.
    """

    def __init__(
        self,
        stage: str,
        context: RunContext,
        flow_run_id: UUID,
        on_line: Callable[[], None],
        task_run_id: UUID | None = None,
    ) -> None:
        """`on_line` is called after every line. With a `task_run_id`, other tasks' records are left out.

        Raises DestinationError if there is no such workspace.
        """
        super().__init__()
        self._store, self._run, self._name = open_workspace(context.workspace), context.run, log_name(stage)
        self._flow_run_id = str(flow_run_id)
        self._task_run_id = None if task_run_id is None else str(task_run_id)
        self._on_line = on_line
        self._earlier: bytes | None = None  # read when the first lines are written
        self._lines: list[str] = []
        self._written = 0
        self._bytes = 0  # of earlier and these lines
        self._writing = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record of this run and task, or one that names none."""
        run = getattr(record, "flow_run_id", None)
        task = getattr(record, "task_run_id", None)
        is_ours = run is None or str(run) == self._flow_run_id
        is_others = self._task_run_id is not None and task is not None and str(task) != self._task_run_id
        if is_ours and not is_others and not getattr(record, "is_progress", False):
            text = record.getMessage()
            if record.exc_info:
                text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
            self._add(record.created, record.levelname, text)

    def progress(self, stage: str, progress: Progress) -> None:
        """Add a progress report."""
        share = f"{100 * progress.done / progress.total:5.1f} %" if progress.total else "      …"
        self._add(datetime.now(UTC).timestamp(), "PROGRESS", f"{stage} {share} {progress.note}")

    def failed(self, error: BaseException) -> None:
        """Add the error that ended the stage: Spaceport's errors as one sentence, others with their traceback."""
        text = str(error) if isinstance(error, SpaceportError) else "".join(traceback.format_exception(error)).rstrip()
        self._add(datetime.now(UTC).timestamp(), "ERROR", f"{type(error).__name__}: {text}")

    @property
    def pause_seconds(self) -> float:
        """Pause between two writes."""
        return min(max(1.0, self._bytes / BYTES_PER_PAUSE) * LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS)

    def write(self) -> None:
        """Write the whole log into the run's folder, if it has grown. Raises StorageError or DestinationError."""
        with self._writing:
            count = len(self._lines)
            if count > self._written:
                if self._earlier is None:
                    self._earlier = self._store.read_run_file(self._run, self._name) or b""
                    self._bytes += len(self._earlier)
                content = self._earlier + "".join(self._lines[:count]).encode()
                self._store.write_run_file(self._run, self._name, content)
                self._written = count

    def _add(self, timestamp: float, level: str, text: str) -> None:
        time = datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # so that names in a message cannot control a terminal, or pass for a line of the log
        line = f"{time} {level:8} {printable_lines(text).replace(NEW_LINE, CONTINUED)}\n"
        self._lines.append(line)
        self._bytes += len(line.encode())
        self._on_line()


def outlive_reader() -> None:
    """Keep the run alive when the console's pipe breaks; only its lines on the console are lost.

    A worker reads the output of its runs, and a run outlives a worker that is killed. Prefect prints with rich, whose
    Console.on_broken_pipe would end the process.
    """
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    for logger in (logging.root, *loggers):
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler):
                _ignore_broken_pipe(handler.console)


def _ignore_broken_pipe(console: Console) -> None:
    def fall_silent() -> None:
        console.quiet = True

    # rich expects a subclass to override this method, but Prefect creates the console.
    console.on_broken_pipe = fall_silent  # type: ignore[method-assign]
