"""The peak is that of the work alone, with the processes that it starts."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tasks.core.usage import PeakMemory

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


@contextmanager
def child_with_300_mb() -> Iterator[None]:
    program = "import sys; held = bytearray(b'x') * (300 * 2**20); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield
        child.communicate()


def test_a_child_counts_that_the_work_starts() -> None:
    with PeakMemory() as alone:
        pass
    with PeakMemory() as together, child_with_300_mb():
        together._look()  # as the sampler does now and then
    assert together.peak_bytes - alone.peak_bytes > 250 * MB


def test_a_child_from_before_does_not_count() -> None:
    with PeakMemory() as alone:
        pass
    with child_with_300_mb(), PeakMemory() as beside:
        pass
    assert beside.peak_bytes - alone.peak_bytes < 100 * MB


def test_work_within_work_counts_for_both() -> None:
    with PeakMemory() as quiet:
        pass
    with PeakMemory() as outer, PeakMemory() as inner:
        touch(200)
    for peak in (outer, inner):
        assert peak.peak_bytes - quiet.peak_bytes > 150 * MB
