"""Retries of tasks: the errors that are retried, and the delays."""

import errno
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import httpx
from PIL import UnidentifiedImageError
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.errors import SpaceportError
from tasks.reporting.recording import recorded
from tasks.running.dispatch import StageRunFailed

# Errors of network and disk that do not go away in a minute: a wrong path, no permission, a file that is not a picture.
LASTING = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    UnidentifiedImageError,
)
LASTING_NUMBERS = frozenset([errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOTSUP])

P = ParamSpec("P")
R = TypeVar("R")

# Seconds before each retry, lengthened at random by up to the factor. They outlast half a minute without a store or a
# network, and runs that failed together do not retry at the same moment.
RETRY_DELAYS_SECONDS = [2.0, 10.0, 40.0]
RETRY_JITTER_FACTOR = 0.5


def stage_task(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """`@task` with the settings of every stage. Prefect's cache is off: the workspace stores outputs by key.

    `run_name` is the name of a task run, with the task's parameters in braces, where it is not the stage's word.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        as_task = task(
            name=name,
            task_run_name=run_name or name,
            retries=len(RETRY_DELAYS_SECONDS),
            retry_delay_seconds=RETRY_DELAYS_SECONDS,
            retry_jitter_factor=RETRY_JITTER_FACTOR,
            retry_condition_fn=can_retry,
            cache_policy=NO_CACHE,
        )
        return as_task(recorded(name)(function))

    return decorate


def can_retry(_task: object, _task_run: object, state: State[object]) -> bool:
    """Prefect's retry condition: errors marked as retryable, and errors of network and disk.

    An error of a stage's own run is not retried here, because that run has already had its retries.
    """
    try:
        state.result()
    except SpaceportError as error:
        return error.retryable and not isinstance(error.__cause__, StageRunFailed)
    except OSError as error:  # network and disk; Pillow raises plain OSErrors without a number
        damaged = type(error) is OSError and error.errno is None
        return not damaged and not isinstance(error, LASTING) and error.errno not in LASTING_NUMBERS
    except httpx.TransportError:  # Prefect's server out of reach
        return True
    except Exception:  # noqa: BLE001 - any other error would occur again
        return False
    return False
