"""How much memory this process uses now."""

import psutil
import torch


def memory_in_use_bytes() -> tuple[int, int | None]:
    """Of the machine's memory, and of the GPU's: None where nothing computes there."""
    gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return psutil.Process().memory_info().rss, gpu
