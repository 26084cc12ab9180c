"""A process that holds a lock: whether it lives is only known where its number means something."""

import subprocess
import sys

import pytest

from tasks.core.storage.locks import LockHolder

HERE = LockHolder.here()


@pytest.fixture(scope="module")
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_that_ended_here_has_died(ended: int) -> None:
    assert HERE.model_copy(update={"pid": ended}).has_died()
    assert HERE.model_copy(update={"boot": "an earlier one"}).has_died()
    assert not HERE.has_died()


@pytest.mark.parametrize("other", [{"host": "other"}, {"namespace": "pid:[1]"}])
def test_a_process_that_is_counted_elsewhere_may_live(ended: int, other: dict[str, str]) -> None:
    """Of another machine, or of another container that has this one's host name."""
    assert not HERE.model_copy(update={"pid": ended, **other}).has_died()
