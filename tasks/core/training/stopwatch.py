"""Wall time of training without what is not training."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from its creation on. The budget, too, counts training only."""

    def __init__(self, budget_seconds: float | None, spent_seconds: float = 0.0) -> None:
        """`spent_seconds`: what earlier lives of this training have taken."""
        self._budget_seconds = budget_seconds
        self._started = time.monotonic() - spent_seconds
        self._paused_at: float | None = None

    def seconds(self) -> float:
        """Seconds of training so far; inside `paused` they stand still."""
        return (self._paused_at or time.monotonic()) - self._started

    def budget_share(self) -> float:
        """Share of the budget that is spent; 0 when there is none."""
        return self.seconds() / self._budget_seconds if self._budget_seconds else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time spent inside."""
        self._paused_at = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - self._paused_at
            self._paused_at = None
