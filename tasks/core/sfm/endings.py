"""Errors for the ways in which a process that runs pycolmap ends: worth a retry or not, and what to change."""

import signal

from tasks.core.errors import OutOfMemoryError, SfmCrashError, StageError
from tasks.core.machine_memory import available_memory_bytes, oom_kills

LESS_MEMORY = "lower sfm.max_features_image_size or sfm.max_features, close other programs, or take a larger machine"


def how_it_ended(returncode: int) -> str:
    """In words, after the name of the process."""
    return f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with status {returncode}"


def ending(process: str, returncode: int, oom_kills_before: int | None, more: str) -> StageError:
    """The error for a process that ended without a result.

    Args:
        process: its name, at the beginning of the sentence.
        returncode: as subprocess has it, negative for a signal.
        oom_kills_before: `oom_kills()` when it began.
        more: sentences to add.

    Returns:
        OutOfMemoryError if the system killed it for want of memory, or if the system does not count such kills and
        SIGKILL ended it; SfmCrashError for any other signal, which native code raises by chance as well as by rule; a
        plain StageError for an exit status, which is how Python ends with an exception.
    """
    how = f"{process} {how_it_ended(returncode)}"
    if returncode == -signal.SIGKILL and (oom_kills_before is None or oom_kills() != oom_kills_before):
        return out_of_memory(f"{how}, as the system does when memory runs out", more)
    return (SfmCrashError if returncode < 0 else StageError)(f"{how}. {more}".rstrip())


def out_of_memory(how: str, more: str = "") -> OutOfMemoryError:
    """The error for want of memory, with a way out. `how`: a sentence without its full stop."""
    free = available_memory_bytes() / 1e9
    return OutOfMemoryError(f"{how} ({free:.1f} GB are free now): {LESS_MEMORY}. {more}".rstrip())
