"""From one splat format to the other, as the file names say."""

from pathlib import Path

from tasks.core.sog import quick_start  # noqa: F401 - before anything else brings numpy or numba

# isort: split
from tasks.core.errors import DestinationError, FormatError
from tasks.core.gaussians import Gaussians
from tasks.core.ply import SplatModel, gaussians_of_ply, model_of_ply, open_ply, write_ply
from tasks.core.progress import ProgressCallback, ignore_progress
from tasks.core.sog.compressed_ply import is_compressed, read_compressed
from tasks.core.sog.layout import META_FILE
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.reader import read_sog_and_model
from tasks.core.sog.writer import write_sog


def read_splat(path: Path) -> tuple[Gaussians, SplatModel]:
    """Read a .ply, plain or compressed, a .sog, or an unbundled SOG (a folder with meta.json, or that file)."""
    if path.suffix.lower() == ".ply":
        data = open_ply(path)
        read = read_compressed if is_compressed(data) else gaussians_of_ply
        return read(data, path.name), model_of_ply(data)
    if path.suffix.lower() == ".sog" or path.name == META_FILE or path.is_dir():
        return read_sog_and_model(path)
    raise FormatError(f"{path.name}: only .ply, .compressed.ply, .sog and meta.json can be read.")


def convert(
    source: Path,
    target: Path,
    options: CompressOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
) -> int:
    """Convert a splat and return how many Gaussians it has. Options apply when a SOG is written.

    The target is a .ply, a .sog, or a meta.json whose folder gets the files of an unbundled SOG. Raises FormatError for
    a source that is not what its name says, DestinationError for a target of another kind.
    """
    is_sog = target.suffix.lower() == ".sog" or target.name == META_FILE
    if not is_sog and (target.suffix.lower() != ".ply" or target.name.endswith(".compressed.ply")):
        raise DestinationError(f"{target.name}: only .ply, .sog and meta.json can be written.")
    if not target.parent.is_dir():
        raise DestinationError(f"The folder {target.parent} does not exist; create it first.")
    gaussians, model = read_splat(source)
    if is_sog:
        write_sog(gaussians, target, options, on_progress, model=model)
    else:
        write_ply(gaussians, target, model)
    return len(gaussians)
