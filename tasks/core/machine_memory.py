"""Memory that this process can still take, and the system's count of processes killed for want of it."""

from pathlib import Path

import psutil

CONTAINER = Path("/sys/fs/cgroup")  # version 2: what containers see
KERNEL_COUNTS = Path("/proc/vmstat")


def available_memory_bytes() -> int:
    """Of the machine's memory, or of its container's where that is less.

    Copies of files in memory count as free, as the kernel gives them up first.
    """
    available = int(psutil.virtual_memory().available)
    try:
        limit = int((CONTAINER / "memory.max").read_text())
        used = int((CONTAINER / "memory.current").read_text())
        parts = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        files = int(parts["active_file"]) + int(parts["inactive_file"])
    except (OSError, ValueError, KeyError):  # another system, no container, or no limit ("max")
        return available
    return max(0, min(available, limit - used + files))


def oom_kills() -> int | None:
    """Count the processes that the kernel has killed for want of memory since it started, in any container.

    None where the system does not say.
    """
    try:
        lines = KERNEL_COUNTS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
