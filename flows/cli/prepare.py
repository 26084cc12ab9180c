"""Prepare an installation, so that no run has to: `python -m flows.cli.prepare [kernels] [database]`.

Kernels are kept in the installation. Prefect's database is the user's own state on this machine.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from flows.cli.prefect_variables import configure_prefect
from tasks.core.errors import OptionsError
from tasks.running.settings import Settings


def prepare(parts: Sequence[str] = ()) -> None:
    """Compile every kernel into numba's cache and bring Prefect's local database to the installed version.

    `parts`: some of PARTS; all of them when empty. Raises OptionsError for any other name.
    """
    if unknown := set(parts) - set(PARTS):
        raise OptionsError(
            f"There is nothing called {', '.join(sorted(unknown))} to prepare; name {' or '.join(PARTS)}."
        )
    for name in parts or PARTS:
        start = time.monotonic()
        PARTS[name]()
        print(f"prepared {name} in {time.monotonic() - start:.0f} s")


def _upgrade_database() -> None:
    configure_prefect(Settings())
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"Prefect's database could not be prepared:\n{finished.stdout}{finished.stderr}")


def _compile_kernels() -> None:
    from tasks.core.demo.flight import compile_kernels as compile_demo
    from tasks.core.kernel_cache import ensure_compiled
    from tasks.core.sog import compile_kernels as compile_sog

    ensure_compiled("tasks.core.render.warmup")
    compile_sog()
    compile_demo()


PARTS: dict[str, Callable[[], None]] = {"kernels": _compile_kernels, "database": _upgrade_database}

if __name__ == "__main__":
    try:
        prepare(sys.argv[1:])
    except OptionsError as error:
        sys.exit(str(error))
