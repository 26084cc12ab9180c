"""Resources that this process uses: memory, its peak, and the GPU."""

import contextlib
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType

import psutil

SAMPLED_SECONDS = 0.2
RESET_PEAK = "5"  # written to clear_refs, it sets VmHWM to what is resident now: man 5 proc
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures a piece of work while entered: resident memory of this process and of those it starts meanwhile.

    Processes that it started before do not count: Prefect's server may be one. The process's own peak is the kernel's,
    which misses nothing; the peak of all processes together is sampled. Entering a second PeakMemory inside resets the
    kernel's peak, so the outer one has only samples of the time before.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._kernel_counts = False  # since this was entered, and not since the process began
        self._started_before: frozenset[psutil.Process] = frozenset()
        self.peak_bytes = 0  # the most up to the last sample; complete once this is left

    def __enter__(self) -> "PeakMemory":
        self._started_before = frozenset(self._process.children(recursive=True))
        with contextlib.suppress(OSError):  # a kernel without it, or a container that may not
            CLEAR_REFS.write_text(RESET_PEAK)
            self._kernel_counts = True
        self._look()
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._sampler.join()
        self._look()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLED_SECONDS):
            self._look()

    def _look(self) -> None:
        started = frozenset(self._process.children(recursive=True)) - self._started_before
        total = 0
        for process in (self._process, *started):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                total += process.memory_info().rss
        own = _own_peak_bytes() if self._kernel_counts else 0
        self.peak_bytes = max(self.peak_bytes, total, own)


def _own_peak_bytes() -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


@dataclass(frozen=True)
class GpuUsage:
    """The GPU that this process computes on. None where the driver has no number."""

    allocated_bytes: int  # by this process's tensors
    used_bytes: int | None  # by all processes, with the reserves of driver and allocators
    utilisation_percent: int | None  # share of the last moments in which some kernel ran
    temperature_celsius: int | None


def memory_in_use_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def gpu_usage() -> GpuUsage | None:
    """The GPU's state; None where nothing computes on a GPU."""
    import torch  # here, as most processes that measure their memory need no GPU

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    used = utilisation = temperature = None
    nvml = _nvml()
    if nvml is not None:
        try:
            handle = _handle(nvml)
            used = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
            utilisation = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            temperature = int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        except nvml.NVMLError:  # a virtual GPU, or a slice of one, does not have them all
            pass
    return GpuUsage(int(torch.cuda.memory_allocated()), used, utilisation, temperature)


@cache
def _nvml() -> ModuleType | None:
    """The driver's library, initialised; None where there is none."""
    try:
        import pynvml  # here, because it is not needed without a GPU
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    module: ModuleType = pynvml
    return module


def _handle(nvml: ModuleType) -> object:
    """By UUID, because CUDA may count the GPUs in another order, or not see them all."""
    import torch

    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
