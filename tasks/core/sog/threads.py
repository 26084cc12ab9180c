"""Work on slices of rows, on a few threads: the kernels and libwebp let go of the interpreter lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 2  # a fixed number, so that memory stays predictable; results do not depend on it

Result = TypeVar("Result")


def in_chunks(rows: int, work: Callable[[slice], Result], chunks: int = 2 * THREADS) -> list[Result]:
    """What `work` gives for slices of so many rows, in order."""
    step = max(1, -(-rows // chunks))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, [slice(start, start + step) for start in range(0, rows, step)]))
