"""The files of a SOG at their place: in one zip, or side by side in a folder."""

import io
import shutil
import zipfile
from pathlib import Path

from tasks.core.errors import DestinationError
from tasks.core.sog.layout import META_FILE

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: the same Gaussians give the same bytes


def write_files(path: Path, members: dict[str, bytes]) -> None:
    """Write `members`: into the folder of a path that ends in meta.json, else into a zip at `path`.

    Nothing is left at `path` after an error, which is a DestinationError.
    """
    try:
        if path.name == META_FILE:
            _write_folder(path, members)
        else:
            _write_zip(path, members)
    except OSError as error:
        raise DestinationError(f"{path} cannot be written: {error.strerror}.") from error


def _write_folder(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, data in members.items():  # meta.json last: a folder without it is no splat
        if name != META_FILE:
            (path.parent / name).write_bytes(data)
    part = path.with_name(path.name + ".part")
    part.write_bytes(members[META_FILE])
    part.replace(path)


def _write_zip(path: Path, members: dict[str, bytes]) -> None:
    """A zip that viewers read: members stored, no comment, no zip64."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # or it names the writer's operating system
            archive.writestr(info, data)
    buffer.seek(0)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(buffer, file)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
