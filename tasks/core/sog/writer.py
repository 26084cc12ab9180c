"""Write Gaussians as SOG v2, bundled in one file or as a folder."""

import io
import shutil
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.errors import DestinationError, FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Gaussians
from tasks.core.ply import SplatModel
from tasks.core.progress import Progress, ProgressCallback, ignore_progress
from tasks.core.sog import layout
from tasks.core.sog.attributes import THREADS, with_least_rotation
from tasks.core.sog.codebook import make_codebook
from tasks.core.sog.encoder import Encoder, Pictures
from tasks.core.sog.layout import META_FILE
from tasks.core.sog.options import FINEST, LADDER, CompressOptions, Precision
from tasks.core.sog.storable import require_numbers, with_rotations

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip; fixed, so that the same Gaussians give the same bytes

GENERATOR = "spaceport"
_NOTHING = 1e-4  # a coefficient below this changes no channel of any colour by a tenth of 1/255


def write_files(path: Path, members: dict[str, bytes]) -> None:
    """Write `members` into the folder of a path that ends in meta.json, else into a zip at `path`.

    Raises DestinationError, and then leaves nothing at `path`.
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
    for name, data in members.items():  # meta.json last: a folder without it is not a splat
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
            info.create_system = 3  # otherwise the file would name the writer's operating system
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


def require_storable(gaussians: Gaussians) -> None:
    """Raise FormatError for no Gaussians, too many, or numbers that cannot be stored."""
    n = len(gaussians)
    if n == 0:
        raise FormatError("There are 0 Gaussians; a .sog needs at least 1.")
    if max(layout.picture_size(n)) > layout.MAX_WEBP_SIDE:
        raise FormatError(
            f"{n:,} Gaussians do not fit into one .sog (at most {layout.MAX_WEBP_SIDE**2:,}); prune them."
        )
    require_numbers(gaussians)


def write_sog(
    gaussians: Gaussians,
    path: Path,
    options: CompressOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
    precision: Precision = FINEST,
    model: SplatModel = "default",
) -> None:
    """Write SOG v2: a .sog, or a folder of files when `path` ends in meta.json. Gaussians are reordered.

    The same Gaussians and options give the same bytes. model: the way of drawing that they were trained for.

    Raises FormatError when the Gaussians hold numbers that cannot be stored, DestinationError when the file cannot
    be written. Nothing is left at `path` after an error.
    """
    options = options or CompressOptions()
    require_storable(gaussians)
    gaussians = with_rotations(gaussians)
    if precision.by_appearance:
        gaussians = with_least_rotation(gaussians)
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": GENERATOR},
        "count": len(gaussians),
        "model": None if model == "default" else model,
    }
    pictures: Pictures = {}

    def add(part: dict[str, Any], encoded: Pictures) -> None:
        meta.update(part)
        pictures.update(encoded)

    with ThreadPoolExecutor(THREADS) as pool:
        encode = Encoder(gaussians, precision, options, pool)
        for job in [pool.submit(work) for work in (encode.colors, encode.scales, encode.positions, encode.rotations)]:
            add(*job.result())
        on_progress(Progress(0.2, 1, "positions, rotations, scales and colours"))
    degree = kept_degree(gaussians, options, precision)
    if degree:
        shares = lambda share: on_progress(Progress(0.2 + 0.7 * share, 1, "view-dependent colours"))  # noqa: E731
        add(*encode.view_dependence(degree, shares))
    text = layout.Meta.model_validate(meta).model_dump_json(exclude_none=True)
    write_files(path, {layout.META_FILE: text.encode(), **dict(sorted(pictures.items()))})
    size = len(text) + sum(map(len, pictures.values()))
    on_progress(Progress(1, 1, f"{size / 1e6:.1f} MB"))


def kept_degree(gaussians: Gaussians, options: CompressOptions, precision: Precision) -> int:
    """The highest wanted degree of spherical harmonics whose coefficients change any colour."""
    degree = min(options.sh_degree, gaussians.sh_degree)
    least = max(_NOTHING, (precision.sh_step or 0.0) / 2)
    while degree:
        band = gaussians.shN[:, SH_COEFFICIENTS[degree - 1] - 1 : SH_COEFFICIENTS[degree] - 1]
        if max(band.max(), -band.min()) > least:
            break
        degree -= 1
    return degree


def run_every_kernel() -> None:
    """Run every kernel once on a little data; numba keeps the compiled code on disk."""
    rng = np.random.default_rng(0)
    n = 1200  # more than the smallest palette, so that k-means runs
    gaussians = Gaussians(
        means=rng.normal(size=(n, 3)).astype(np.float32),
        quats=rng.normal(size=(n, 4)).astype(np.float32),
        log_scales=rng.normal(size=(n, 3)).astype(np.float32),
        raw_opacities=rng.normal(size=n).astype(np.float32),
        sh0=rng.normal(size=(n, 1, 3)).astype(np.float32),
        shN=rng.normal(size=(n, 3, 3)).astype(np.float32),
    )
    with tempfile.TemporaryDirectory() as folder:
        for precision in (FINEST, LADDER[0]):
            write_sog(gaussians, Path(folder) / "scene.sog", CompressOptions(max_palette=64), precision=precision)
        make_codebook(rng.normal(size=100_000).astype(np.float32))  # so many that they are counted in bins
