"""Start of a short process, in processes of their own."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

THREADS = "OPENBLAS_NUM_THREADS"
LOOK = f"""
import os, psutil, sys
import tasks.core.sog.convert
print(psutil.Process().num_threads(), os.environ.get("{THREADS}"), "scipy.linalg" in sys.modules)
"""


@pytest.mark.parametrize("chosen", [None, "2"])
def test_no_thread_waits_for_matrices_and_children_do_not_know(chosen: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != THREADS}
    if chosen is not None:
        environment[THREADS] = chosen
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    threads = 1 if chosen is None else min(int(chosen), len(os.sched_getaffinity(0)))  # OpenBLAS makes no more
    assert done.stdout.split() == [str(threads), str(chosen), "False"]
