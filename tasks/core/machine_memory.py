"""Memory of this machine, what of it is available, and how many processes the system killed for lack of it."""

from pathlib import Path

import psutil

CONTAINER = Path("/sys/fs/cgroup")  # version 2: what containers see
KERNEL_COUNTS = Path("/proc/vmstat")


def available_memory_bytes() -> int:
    """Return the available memory of the machine, or of its container if that is less.

    Cached files count as free, because the kernel drops them first.
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


def total_memory_bytes() -> int:
    """Return the memory of the machine, or of its container if that is less, whatever uses it now."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int((CONTAINER / "memory.max").read_text()))
    except (OSError, ValueError):  # another system, no container, or no limit ("max")
        return total


def oom_kills() -> int | None:
    """Return the number of processes that the kernel has killed for lack of memory since boot, in any container.

    None if the system does not count them.
    """
    try:
        lines = KERNEL_COUNTS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
