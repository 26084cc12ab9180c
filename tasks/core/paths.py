"""Paths on this machine: names as typed by people, and files and folders that only their owner can read."""

import os
from pathlib import Path

from tasks.core.errors import InputError

OWNER_ONLY_FOLDER, OWNER_ONLY_FILE = 0o700, 0o600


def local_path(name: str) -> Path:
    """Return the path of that name; `~` is the home folder.

    Raises InputError for an empty name, which would mean a worker's current folder, and for the home of an unknown
    user.
    """
    if not name.strip():
        raise InputError("The name of a file or folder is empty: write its path.")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{name} begins with the home folder of a user whom this machine does not know: write the whole path."
        ) from error


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter; an existing folder is closed to others. Raises OSError."""
    folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(OWNER_ONLY_FOLDER)


def write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner can read, completely or not at all. Raises OSError."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, OWNER_ONLY_FILE)
    with os.fdopen(descriptor, "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    partial.replace(file)
