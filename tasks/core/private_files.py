"""Files and folders that their owner alone can read, from the moment when they appear."""

import os
from pathlib import Path

OWNER_ONLY_FOLDER, OWNER_ONLY_FILE = 0o700, 0o600


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter; one that is there already is closed to others. Raises OSError."""
    folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(OWNER_ONLY_FOLDER)


def write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner can read, all of it or nothing. Raises OSError."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, OWNER_ONLY_FILE)
    with os.fdopen(descriptor, "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    partial.replace(file)
