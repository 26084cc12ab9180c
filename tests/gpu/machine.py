"""The machine that the numbers were measured on: `python -m tests.gpu.machine [--arch]`, as JSON."""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess

import torch

from tasks.core.render.cuda import why_unavailable


def architecture() -> str:
    """The GPU's own, as TORCH_CUDA_ARCH_LIST takes it: 7.5 for a T4, 9.0 for an H100."""
    return "{}.{}".format(*torch.cuda.get_device_capability())


def described() -> dict[str, object]:
    """Null is what is not there."""
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "gpu": None if gpu is None else gpu.name,
        "gpu_bytes": None if gpu is None else gpu.total_memory,
        "architecture": None if gpu is None else architecture(),
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "nvcc": _nvcc(),
        "gsplat": importlib.metadata.version("gsplat"),
        "why_cuda_is_unavailable": why_unavailable(),
    }


def _nvcc() -> str | None:
    path = shutil.which("nvcc")
    if path is None:
        return None
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", action="store_true", help="the GPU's architecture alone, before anything is built")
    arguments = parser.parse_args()
    print(architecture() if arguments.arch else json.dumps(described(), indent=1))


if __name__ == "__main__":
    main()
