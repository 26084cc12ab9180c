"""numba's `njit` with a cache on disk that depends on all the code of a kernel.

numba itself only checks the kernel's own file, so after a change of a constant in another file it would keep using the
old machine code. Here a kernel's compiled code is in a folder named by the digest of its module and all its imports.

Code that a process has just compiled differs from the code that a later process loads: stored code was linked and
optimised once more, so the body of a parallel loop rounds differently. Kernels with parallel loops are therefore
compiled in a separate process, and all other processes load them.
"""

import hashlib
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import njit, prange
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.registry import cpu_target

from tasks.core.errors import MissingPartError
from tasks.core.progress import Progress, ProgressCallback, ignore_progress
from tasks.core.source_digest import PACKAGE, ROOT, source_digest

__all__ = ["ensure_compiled", "njit", "prange"]

DIGEST_LENGTH = 16  # hexadecimal digits in the folder's name
PROGRESS = "progress "  # begins the lines with which the compiling process reports its progress
_is_compiler = False  # whether this process compiles for others
_compiled: set[str] = set()  # warm-ups that are known to be compiled


class _BySource:
    """Locate a kernel's cache: in the folder that numba chooses, a folder named by the sources."""

    _cache_path: str

    def __init__(self, py_func: Callable[..., object], py_file: str) -> None:
        super().__init__(py_func, py_file)  # type: ignore[call-arg]  # numba's locators take both
        self._digest = source_digest(py_func.__module__)
        self._cache_path = str(Path(self._cache_path) / f"kernels-{self._digest[:DIGEST_LENGTH]}")

    @classmethod
    def from_function(cls, py_func: Callable[..., object], py_file: str) -> Any:
        """Return a locator, or None for functions of other projects and read-only folders."""
        if not (py_func.__module__ or "").startswith(f"{PACKAGE}."):
            return None
        return super().from_function(py_func, py_file)  # type: ignore[misc]  # numba's locators have it

    def get_source_stamp(self) -> str:
        """Return a constant: the folder's name identifies the sources, so their time does not matter."""
        return self._digest

    def get_disambiguator(self) -> str:
        """Return a constant instead of numba's line number, so that a comment above a kernel changes nothing."""
        return "0"


class ProvidedFolder(_BySource, UserProvidedCacheLocator):
    """Below NUMBA_CACHE_DIR."""


class BesideSource(_BySource, InTreeCacheLocator):
    """In `__pycache__` next to the kernel's file."""


class UserFolder(_BySource, UserWideCacheLocator):
    """In the user's cache folder, if the folder of the sources is read-only."""


LOCATORS = (ProvidedFolder, BesideSource, UserFolder)
_config: Any = numba.config  # makes its attributes at run time
_config.CACHE_LOCATOR_CLASSES = ",".join(
    [
        *(f"{__name__}.{locator.__name__}" for locator in LOCATORS),
        # for kernels of others in this process
        _config.CACHE_LOCATOR_CLASSES
        or "UserProvidedCacheLocator,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator,ZipCacheLocator",
    ]
)


def ensure_compiled(warm_up: str, on_progress: ProgressCallback = ignore_progress) -> None:
    """Compile a folder's kernels in a separate process, unless they are compiled already.

    Args:
        warm_up: a module whose `compile_kernels(on_progress)` runs every kernel of the folder once.
        on_progress: called with the progress of compiling.

    Raises:
        MissingPartError: the kernels cannot be compiled here; its message has the last line of the reason.
    """
    if _is_compiler or warm_up in _compiled:
        return
    mark = _mark(warm_up)
    if not mark.exists():
        _compile_elsewhere(warm_up, on_progress)
        mark.touch()
    _compiled.add(warm_up)


def _mark(warm_up: str) -> Path:
    """Return the file that marks all kernels as compiled, by this numba for this processor and Python."""
    module = importlib.import_module(warm_up)
    found = (locator.from_function(module.compile_kernels, inspect.getfile(module)) for locator in LOCATORS)
    folder = next(locator.get_cache_path() for locator in found if locator is not None)
    compiled_for = [numba.__version__, sys.version_info[:2], cpu_target.target_context.codegen().magic_tuple()]
    return Path(folder) / f"complete-{hashlib.sha256(repr(compiled_for).encode()).hexdigest()[:DIGEST_LENGTH]}"


def _compile_elsewhere(warm_up: str, on_progress: ProgressCallback) -> None:
    program = f"from tasks.core.kernel_cache import compile_for_others; compile_for_others({warm_up!r})"
    last_words = ""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as compiler:
        assert compiler.stdout is not None
        try:
            for line in compiler.stdout:
                if line.startswith(PROGRESS):
                    on_progress(Progress(*json.loads(line.removeprefix(PROGRESS))))
                elif line.strip():
                    last_words = line.strip()
        except BaseException:
            compiler.kill()
            raise
    if compiler.returncode != 0:
        reason = last_words or f"its process ended with status {compiler.returncode}"
        raise MissingPartError(f"The CPU kernels cannot be compiled on this machine: {reason}")


def compile_for_others(warm_up: str) -> None:
    """Run every kernel once, in the compiling process, with progress on standard output."""
    global _is_compiler
    _is_compiler = True

    def report(progress: Progress) -> None:
        sys.stdout.write(f"{PROGRESS}{json.dumps([progress.done, progress.total, progress.note])}\n")
        sys.stdout.flush()

    importlib.import_module(warm_up).compile_kernels(report)
