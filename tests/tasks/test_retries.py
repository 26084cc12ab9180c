"""Errors that a retry can help are retried; all others fail at once, once."""

import errno

import pytest
from PIL import UnidentifiedImageError
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from tasks.core.errors import PhotosError, SfmCrashError, StorageError
from tasks.running.retries import can_retry

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (StorageError("gone"), 3),
        (SfmCrashError("aborted"), 3),
        (ConnectionError("reset"), 3),
        (OSError(errno.EIO, "a disk that stutters"), 3),
        (FileNotFoundError(errno.ENOENT, "no such file"), 1),
        (PermissionError(errno.EACCES, "not allowed"), 1),
        (OSError("image file is truncated"), 1),
        (OSError(errno.EROFS, "read-only"), 1),
        (UnidentifiedImageError("no picture"), 1),
        (PhotosError("no photos"), 1),
        (ZeroDivisionError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attempts(error: Exception, attempts: int) -> None:
    made = 0

    @task(retries=2, retry_condition_fn=can_retry, cache_policy=NO_CACHE)
    def fail() -> None:
        nonlocal made
        made += 1
        raise error

    @flow
    def failing() -> None:
        fail()

    with pytest.raises(type(error)):
        failing()
    assert made == attempts
