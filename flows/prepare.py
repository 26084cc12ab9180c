"""What set-up does once after installing, so that no run pays for it: compiled kernels, and Prefect's database."""

import subprocess
import sys
import time

from tasks.core.settings import Settings, configure_prefect


def prepare() -> None:
    """Compile every kernel into numba's cache and bring Prefect's local database to the installed version."""
    configure_prefect(Settings.from_environment())
    steps = (("Prefect's database", _upgrade_database), ("kernels", _compile_kernels))
    for name, step in steps:
        start = time.monotonic()
        step()
        print(f"prepared {name} in {time.monotonic() - start:.0f} s")


def _upgrade_database() -> None:
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"Prefect's database could not be prepared:\n{finished.stdout}{finished.stderr}")


def _compile_kernels() -> None:
    from tasks.core.demo.flight import compile_kernels as compile_demo
    from tasks.core.progress import ignore_progress
    from tasks.core.render.warmup import compile_kernels as compile_render
    from tasks.core.sog import compile_kernels as compile_sog

    compile_render(ignore_progress)
    compile_sog()
    compile_demo()


if __name__ == "__main__":
    prepare()
