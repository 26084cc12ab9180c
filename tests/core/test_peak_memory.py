"""The peak is that of the work alone, and counts child processes."""

import subprocess
import sys

import numpy as np

from tasks.core.peak_memory import PeakMemory

MB = 2**20


def touch(megabytes: int) -> None:
    np.ones(megabytes * MB, np.uint8)


def test_what_was_used_before_does_not_count() -> None:
    with PeakMemory() as large:
        touch(400)
    with PeakMemory() as small:
        touch(1)
    assert large.peak_bytes - small.peak_bytes > 300 * MB, "pages that others gave back meanwhile are far fewer"


def test_a_spike_between_two_samples_counts() -> None:
    with PeakMemory() as quiet:
        pass
    with PeakMemory() as spike:
        touch(200)  # gone after some milliseconds
    assert spike.peak_bytes - quiet.peak_bytes > 150 * MB


def test_children_count_with_the_work_that_began_them() -> None:
    program = "import sys; held = bytearray(b'x') * (300 * 2**20); print('held', flush=True); sys.stdin.read()"
    with PeakMemory() as together:
        child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
    with PeakMemory() as alone:  # the child is still there, but was before
        pass
    child.communicate()
    assert together.peak_bytes - alone.peak_bytes > 250 * MB
