"""How many Gaussians this machine's memory can train on the CPU."""

from pathlib import Path

import psutil

from tasks.core.gaussians import SH_COEFFICIENTS

# Of what is free, for all that is not counted here and for whoever else works on the machine.
SPARE_SHARE = 0.2
# A parameter, two moments, a gradient in a buffer that grows by quarters, and a copy when it is measured or saved.
BYTES_PER_FLOAT = 4 * (1 + 2 + 1.25 + 1)
# Projection, sorting and pairs of tile and Gaussian. Measured at degree 3, 960x640 and 200k to 1M Gaussians: 1.6 kB for
# each of them in all, with 1.3 to 2 pairs each; a pair takes 65 B, and this leaves room for 10.
BYTES_PER_GAUSSIAN = 950
LEAST_GAUSSIANS = 1000  # as memory.MIN_GAUSSIANS: below it there is no picture worth computing


def available_memory_bytes() -> int:
    """What this process can still take: of the machine's memory, or of its container's where that is less."""
    available = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")  # version 2: what containers see
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # another system, no container, or no limit ("max")
        return available
    return max(0, min(available, limit - used))


def affordable_gaussians(available_bytes: float, sh_degree: int) -> int:
    """How many Gaussians of a degree so many free bytes suffice for, and no fewer than LEAST_GAUSSIANS."""
    floats = 3 + 4 + 3 + 1 + 3 * SH_COEFFICIENTS[sh_degree]  # means, quats, log_scales, raw_opacities, colours
    each = floats * BYTES_PER_FLOAT + BYTES_PER_GAUSSIAN
    return max(LEAST_GAUSSIANS, int(available_bytes * (1 - SPARE_SHARE) / each))
