"""Reading the worker's log while it grows: the only place where pycolmap says how far it is."""

import re
import time
from collections.abc import Iterable
from pathlib import Path

from tasks.core.progress import Progress, ProgressCallback

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


class ProgressLog:
    """Turns new lines of the log into progress from 0 to 90 percent, which never goes back."""

    def __init__(self, path: Path, on_progress: ProgressCallback) -> None:
        self._path = path
        self._on_progress = on_progress
        self._read_bytes = 0
        self._phase, self._total = "features", 0
        self._before = 0  # photos or blocks of earlier batches
        self._blocks: dict[str, int] = {}  # begun in this batch, by the thread that says so: one in each process
        self._done = 0.0
        self._started = time.monotonic()

    def report_news(self) -> None:
        """Read what was added since the last call and report the newest state, once."""
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
        """How many units of this batch are done, when a line of the log has named this one."""
        if self._phase != "matching":
            return number
        thread = GLOG_PREFIX.match(line)
        self._blocks[thread[1] if thread else ""] = number - 1  # a block is named as it begins
        return sum(self._blocks.values())

    def _time_left(self) -> str:
        """Told once it says something: the rest, if it goes on as it went so far."""
        if self._done < LEAST_PERCENT_FOR_ETA:
            return ""
        seconds = (time.monotonic() - self._started) * (100 - self._done) / self._done
        return f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"


def last_words(path: Path) -> str:
    """The end of the log in one line, without native stack traces."""
    lines = [GLOG_PREFIX.sub("", line).strip() for line in path.read_text("utf-8", errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(("@", "***", "(unknown)", "^"))]
    return " | ".join(said[-LAST_LINES:])[-LAST_LINE_CHARACTERS * LAST_LINES :] or "nothing."
