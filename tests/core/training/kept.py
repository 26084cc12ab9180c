"""Checkpoints in memory and in a folder, for tests of training alone."""

from collections.abc import Callable
from pathlib import Path

from tasks.core.training.checkpoint import Arrays, read_checkpoint, write_checkpoint


class StoppedError(Exception):
    """What a test ends training with."""


class KeptInFolder:
    """See `Checkpoints`. Saves when `is_due` says so of a step, and then raises StoppedError where `stop` says so."""

    def __init__(self, folder: Path, is_due: Callable[[int], bool], stop: bool = False) -> None:
        self.folder, self.is_due, self.stop = folder, is_due, stop
        self.asked = 0
        self.saved: list[int] = []
        folder.mkdir(exist_ok=True)

    def load(self, belongs_to: str) -> Arrays | None:
        path = max(self.folder.glob("*.npz"), default=None)
        if path is None:
            return None
        self.asked = int(path.stem)
        return read_checkpoint(path, belongs_to)

    def due(self) -> bool:
        self.asked += 1
        return self.is_due(self.asked)

    def save(self, step: int, belongs_to: str, arrays: Arrays) -> None:
        assert step == self.asked, "asked once after every step"
        write_checkpoint(self.folder / f"{step:06}.npz", belongs_to, arrays)
        self.saved.append(step)
        if self.stop:
            raise StoppedError(step)
