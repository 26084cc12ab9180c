"""From one splat format to the other, as the file names say."""

from pathlib import Path

from tasks.core.errors import DestinationError, FormatError
from tasks.core.gaussians import Gaussians
from tasks.core.ply import read_ply, write_ply
from tasks.core.progress import ProgressCallback, ignore_progress
from tasks.core.sog.layout import META_FILE
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.reader import read_sog
from tasks.core.sog.writer import write_sog


def read_splat(path: Path) -> Gaussians:
    """Read a .ply, a .sog, or an unbundled SOG (a folder with meta.json, or that file)."""
    if path.suffix.lower() == ".ply":
        return read_ply(path)
    if path.suffix.lower() == ".sog" or path.name == META_FILE or path.is_dir():
        return read_sog(path)
    raise FormatError(f"{path.name}: only .ply, .sog and meta.json can be read.")


def convert(
    source: Path,
    target: Path,
    options: CompressOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> int:
    """Convert a splat and return how many Gaussians it has. Options apply when a .sog is written.

    Raises FormatError for a source that is not what its name says, DestinationError for a target of another kind.
    """
    suffix = target.suffix.lower()
    if suffix not in (".ply", ".sog"):
        raise DestinationError(f"{target.name}: only .ply and .sog can be written.")
    if not target.parent.is_dir():
        raise DestinationError(f"The folder {target.parent} does not exist; create it first.")
    gaussians = read_splat(source)
    if suffix == ".sog":
        write_sog(gaussians, target, options, on_progress)
    else:
        write_ply(gaussians, target)
    return len(gaussians)
