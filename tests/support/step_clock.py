"""A clock that the steps of a training move: what it says depends on no machine."""

from types import SimpleNamespace

import pytest

TICK_SECONDS = 1 / 64  # for one step; a power of two, so that sums are exact


class StepClock:
    """Stands still between two calls of `tick`."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def tick(self, _: object = None) -> None:
        """One step is done."""
        self.seconds += TICK_SECONDS

    def rule(self, patch: pytest.MonkeyPatch) -> None:
        """Be the time of training and of its checkpoints."""
        for module in ("tasks.core.training.state", "tasks.running.checkpoints"):
            patch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: self.seconds))
