"""What computes: how many cores, how fast one of them is, and whether there is a GPU."""

import os
from functools import lru_cache
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tasks.core.errors import OptionsError
from tasks.core.estimate.calibration import core_speed

GROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # version 2: what containers see
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


class Machine(BaseModel):
    """A machine, or the part of one that a stage gets.

    `speed` is that of one core, beside the machine on which this folder's figures were measured: two cores of a
    Xeon of 2023 with AVX-512, in a virtual machine.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    cores: float
    speed: float = 1.0
    gpu: bool = False  # taken for a T4, the only card that there are figures for
    hourly_usd: float | None = None  # null where no price is known


_MACHINES = TypeAdapter(dict[str, Machine])


def machines_by_stage(text: str) -> dict[str, Machine]:
    """SPACEPORT_MACHINES, which says what stages that run elsewhere run on. Raises OptionsError."""
    try:
        return _MACHINES.validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise OptionsError(f"SPACEPORT_MACHINES is not what it has to be: {place}: {fault['msg']}.") from error


@lru_cache
def this_machine() -> Machine:
    """The machine that this process may use, timed for a quarter of a second."""
    return Machine(name="this machine", cores=usable_cores(), speed=core_speed(), gpu=has_usable_gpu())


def has_usable_gpu() -> bool:
    """Return whether training uses CUDA here by default. Loads torch only where there is a driver."""
    if not NVIDIA_DRIVER.exists():
        return False  # known without torch, which takes a second and 200 MB
    from tasks.core.render.backends import resolve_backend

    return resolve_backend("auto") == "cuda"


def usable_cores() -> float:
    """Cores that this process may use; of a container whose share is limited, that share."""
    cores = float(len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1)
    try:
        quota, period = GROUP_LIMIT.read_text().split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # another system, no container, or no limit ("max")
        return cores
