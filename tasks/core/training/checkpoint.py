"""A checkpoint: the state of a training in one file, which is complete or absent.

The file is an uncompressed .npz, because trained numbers hardly compress. Its checksums reveal damage.
"""

import errno
import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import FormatError

FORMAT = "spaceport checkpoint 1"  # the number changes when the meaning of the arrays does
WRONG_BYTES = (None, errno.EINVAL)  # `errno` of errors caused by the bytes: EINVAL from a seek to an offset in them

Arrays = dict[str, NDArray[np.generic]]  # the parts of a state, by name


class Checkpoints(Protocol):
    """Stores the state of training, and decides when to save it."""

    def load(self, belongs_to: str) -> Arrays | None:
        """The newest usable state that was saved for the same training; None when there is none."""

    def due(self) -> bool:
        """Return whether it is time to save. Called after every step."""

    def save(self, step: int, belongs_to: str, arrays: Arrays) -> None:
        """Store a state. After that, it may raise any exception to end training."""


def write_checkpoint(path: Path, belongs_to: str, arrays: Arrays) -> None:
    """Write a checkpoint. The file gets its name once all of it is on the disk. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, format=np.array(FORMAT), belongs_to=np.array(belongs_to), **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def read_checkpoint(path: Path, belongs_to: str) -> Arrays:
    """The arrays of a checkpoint.

    Raises:
        FormatError: the file is damaged, of another format, or belongs to another training.
        OSError: the file is gone, or the disk cannot be read just now.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        found, owner = str(arrays.pop("format")), str(arrays.pop("belongs_to"))
    except Exception as error:  # zip and npy raise a dozen kinds of errors for foreign bytes
        if isinstance(error, OSError) and error.errno not in WRONG_BYTES:
            raise
        raise FormatError(f"{path.name} is damaged or no checkpoint ({type(error).__name__}: {error}).") from error
    if found != FORMAT:
        raise FormatError(f"{path.name} is a {found!r}, this version reads {FORMAT!r}.")
    if owner != belongs_to:
        raise FormatError(f"{path.name} belongs to another training: other photos, options or backend.")
    return arrays
