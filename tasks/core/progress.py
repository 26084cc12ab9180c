"""Progress as data: domain code reports it, and the caller decides how to show it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """The progress of one stage. `done` of `total` in the stage's own unit of effort; `total` 0 means not known yet."""

    done: float
    total: float
    note: str = ""  # one short phrase for people: "matching 120/435 pairs", "24.1 dB, 31k Gaussians"


ProgressCallback = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """A callback that does nothing."""
