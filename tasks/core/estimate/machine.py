"""Machines that stages run on: their cores, the speed of a core, a GPU; and the time that work takes on them."""

import io
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tasks.core.errors import OptionsError

GROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # version 2: what containers see
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")

TIMED_SECONDS = 0.25
# CPU seconds of one piece of work on the reference machine, the minimum of a thousand next to other work. On a quiet
# core most pieces are close to it, on a busy one few. Measured by `python -m tests.benchmarks.estimate --calibrate`.
REFERENCE_SECONDS = 0.00165
SIDE_PX = 512  # of the JPEG in it


class Machine(BaseModel):
    """A machine, or a stage's share of one.

    `speed` is the speed of one core, 1 for the machine on which the constants of this folder were measured: two cores
    of a Xeon of 2023 with AVX-512, in a virtual machine.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    cores: float
    speed: float = 1.0
    gpu: bool = False  # assumed to be a T4, the only card with figures
    hourly_usd: float | None = None  # null where no price is known


@dataclass(frozen=True)
class Work:
    """CPU seconds on a core of the reference machine: in one thread, and spread over all cores."""

    serial: float = 0.0
    parallel: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.serial + other.serial, self.parallel + other.parallel)

    def __mul__(self, times: float) -> "Work":
        return Work(self.serial * times, self.parallel * times)

    def seconds_on(self, machine: Machine) -> float:
        """Wall time on an otherwise idle machine (Amdahl)."""
        return (self.serial + self.parallel / machine.cores) / machine.speed


_MACHINES = TypeAdapter(dict[str, Machine])


def machines_by_stage(text: str) -> dict[str, Machine]:
    """Read SPACEPORT_MACHINES: the machines of stages that run elsewhere. Raises OptionsError."""
    try:
        return _MACHINES.validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise OptionsError(f"SPACEPORT_MACHINES is not what it has to be: {place}: {fault['msg']}.") from error


@lru_cache
def this_machine() -> Machine:
    """The machine that this process may use, timed for TIMED_SECONDS."""
    speed = REFERENCE_SECONDS / least_seconds(TIMED_SECONDS)
    return Machine(name="this machine", cores=usable_cores(), speed=speed, gpu=has_usable_gpu())


def has_usable_gpu() -> bool:
    """Return whether training uses CUDA here by default. Loads torch only if there is a driver."""
    if not NVIDIA_DRIVER.exists():
        return False  # known without torch, which takes a second and 200 MB
    from tasks.core.render.backends import resolve_backend

    return resolve_backend("auto") == "cuda"


def usable_cores() -> float:
    """Return the cores that this process may use; in a container with a CPU limit, the limit."""
    cores = float(len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1)
    try:
        quota, period = GROUP_LIMIT.read_text().split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # another system, no container, or no limit ("max")
        return cores


def least_seconds(for_seconds: float) -> float:
    """Return the CPU seconds of the fastest piece of work, of as many as fit into `for_seconds` of wall time.

    CPU time and the minimum of several pieces both exclude most of the machine's other work.
    """
    encoded, values = _material()
    least, end = float("inf"), time.monotonic() + for_seconds
    while True:
        start = time.thread_time()
        _piece_of_work(encoded, values)
        least = min(least, time.thread_time() - start)
        if time.monotonic() >= end:
            return least


def _material() -> tuple[bytes, np.ndarray]:
    """A JPEG with some texture, and numbers that fit a core's cache."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return buffer.getvalue(), generator.random((256, 256), np.float32)


def _piece_of_work(encoded: bytes, values: np.ndarray) -> None:
    """Decode a photo, as three stages do, then compute exponentials, products and sums, as rendering does."""
    with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as picture:
        picture.load()
    total = values
    for _ in range(12):
        total = np.exp(-total) * values + total * np.float32(0.5)
