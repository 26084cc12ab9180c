"""Names of files and folders on this machine, as people write them."""

from pathlib import Path

from tasks.core.errors import InputError


def local_path(name: str) -> Path:
    """The path of that name, `~` being the home folder.

    Raises InputError for an empty name, which would be the folder that a worker happens to run in, and for the home of
    a user who is not known.
    """
    if not name.strip():
        raise InputError("The name of a file or folder is empty: write its path.")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{name} begins with the home folder of a user whom this machine does not know: write the whole path."
        ) from error
