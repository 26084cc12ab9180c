"""`spaceport doctor`: what this machine can run, what is missing, and the fix."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable

import psutil

from deployments.findings import Finding
from tasks.core.errors import MissingPartError
from tasks.core.render.backends import rasterizer_for
from tasks.core.viewer.page import viewer_version
from tasks.running.settings import Settings


def examine() -> list[Finding]:
    """Look at everything a run needs."""
    settings = Settings()
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(".")
    return [
        Finding(
            "machine", True, f"{os.cpu_count()} cores, {memory.total / 2**30:.0f} GiB of memory, {platform.machine()}"
        ),
        Finding("python", True, platform.python_version()),
        _enough("free memory", memory.available, 2 * 2**30, "Close other programs, or use --preset draft."),
        _enough("free disk", disk.free, 2 * 2**30, "Free some disk, or name another --workspace."),
        *(_package(name) for name in ("prefect", "pycolmap", "torch", "numba", "gsplat")),
        _part("viewer", lambda: f"supersplat-viewer {viewer_version()}", optional=False),
        _part("training, CPU", lambda: f"{rasterizer_for('cpu').name} backend", optional=False),
        _part("training, CUDA", lambda: f"{rasterizer_for('cuda').name} backend", optional=True),
        Finding("training uses", True, f"{rasterizer_for('auto').name} backend"),
        Finding("workspace", True, str(settings.workspace)),
        Finding("state", True, str(settings.home)),
    ]


def _enough(part: str, available: int, needed: int, fix: str) -> Finding:
    says = f"{available / 2**30:.1f} GiB, a small capture needs {needed / 2**30:.0f}"
    return Finding(part, available >= needed, says, fix)


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", "make setup")


def _part(part: str, probe: Callable[[], str], *, optional: bool) -> Finding:
    try:
        return Finding(part, True, probe())
    except MissingPartError as error:
        return Finding(part, False, "not here", str(error), optional)
