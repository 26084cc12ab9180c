"""How much of the machine this process uses now."""

from dataclasses import dataclass
from functools import cache
from types import ModuleType

import psutil
import torch


@dataclass(frozen=True)
class GpuUsage:
    """The GPU that this process computes on. None is what the driver does not say."""

    allocated_bytes: int  # by this process's tensors
    used_bytes: int | None  # by everybody, what the driver and allocators hold in reserve included
    utilisation_percent: int | None  # share of the last moments in which some kernel ran
    temperature_celsius: int | None


def memory_in_use_bytes() -> int:
    """Of the machine's memory."""
    return int(psutil.Process().memory_info().rss)


def gpu_usage() -> GpuUsage | None:
    """None where nothing computes on a GPU."""
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
    """The driver's library, ready to be asked; None where there is none."""
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
    uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
