"""How much memory a piece of work took at most, whatever the process did before it."""

import contextlib
import threading
from pathlib import Path
from types import TracebackType

import psutil

SAMPLED_SECONDS = 0.2
RESET_PEAK = "5"  # written to clear_refs, it sets VmHWM to what is resident now: man 5 proc
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures while it is entered: this process's resident memory, with that of children begun meanwhile.

    The process's own peak is the kernel's, which misses nothing; that of all processes together is sampled.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._strangers: set[int] = set()  # children of before, such as a server
        self._kernel_counts = False  # since this was entered, and not since the process began
        self.peak_bytes = 0  # the most so far; complete once this is left

    def __enter__(self) -> "PeakMemory":
        with contextlib.suppress(OSError):  # a kernel without it, or a container that may not
            CLEAR_REFS.write_text(RESET_PEAK)
            self._kernel_counts = True
        self._strangers = {child.pid for child in self._process.children(recursive=True)}
        self._look()
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._sampler.join()
        self._look()
        if self._kernel_counts:
            self.peak_bytes = max(self.peak_bytes, _own_peak_bytes())

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLED_SECONDS):
            self._look()

    def _look(self) -> None:
        total = 0
        children = (child for child in self._process.children(recursive=True) if child.pid not in self._strangers)
        for process in (self._process, *children):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                total += process.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, total)


def _own_peak_bytes() -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0
