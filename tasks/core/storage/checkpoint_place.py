"""Where the checkpoints of one computation lie, in a workspace of either kind.

    <root>/checkpoints/<cache key>/<name>          what any run goes on from that computes this output
    <root>/checkpoints/<cache key>/<run>/<name>    of a run that computes everything anew: nobody else's

Names sort as the checkpoints' age does. Several runs may work on one output, and each may go on from what another
has saved.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path


class CheckpointPlace(ABC):
    """A few files, each of which appears whole. Errors are those of Workspace, and OSError of a local disk."""

    is_remote: bool  # whether `put` takes so long that a thread should do it

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder to write a checkpoint in, gone when the block ends."""

    @abstractmethod
    def names(self) -> list[str]:
        """What is there, newest first."""

    @abstractmethod
    def put(self, file: Path) -> None:
        """Keep a file of a scratch folder under its own name, in place of what has that name."""

    @abstractmethod
    def get(self, name: str, scratch: Path) -> Path:
        """A local file with a checkpoint's bytes: the file itself, or a copy in the scratch folder."""

    @abstractmethod
    def remove(self, names: list[str]) -> None:
        """Remove some; those that are not there are no trouble."""
