"""How fast one core of this machine is, timed by a fixed piece of work of the kinds that stages are made of."""

import io
import time

import numpy as np
from PIL import Image

TIMED_SECONDS = 0.25
# CPU seconds of one piece on the reference machine (tasks/core/estimate/machine.py), the least of a thousand beside
# other work: on a quiet core most pieces come near it, on a busy one few do. Measured by
# `python -m tests.benchmarks.estimate --calibrate`.
REFERENCE_SECONDS = 0.00165
SIDE_PX = 512


def core_speed() -> float:
    """The speed of a core, 1 for the reference machine's.

    CPU time, not wall time, and the least of several pieces: what else the machine does is left out as far as that is
    possible. Takes TIMED_SECONDS.
    """
    return REFERENCE_SECONDS / least_seconds(TIMED_SECONDS)


def least_seconds(for_seconds: float) -> float:
    """CPU seconds of the quickest of as many pieces of work as fit into so many seconds of wall time."""
    encoded, values = _material()
    least, end = float("inf"), time.monotonic() + for_seconds
    while True:
        start = time.thread_time()
        _work(encoded, values)
        least = min(least, time.thread_time() - start)
        if time.monotonic() >= end:
            return least


def _material() -> tuple[bytes, np.ndarray]:
    """A JPEG with some texture, and numbers that fit a core's cache."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return buffer.getvalue(), generator.random((256, 256), np.float32)


def _work(encoded: bytes, values: np.ndarray) -> None:
    """Decode a photo, as three stages do, and exponentials, products and sums, of which rendering is made."""
    with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as picture:
        picture.load()
    total = values
    for _ in range(12):
        total = np.exp(-total) * values + total * np.float32(0.5)
