"""Gaussians to SOG v2, bundled in one file or as a folder."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tasks.core.gaussians import SH_COEFFICIENTS, Gaussians
from tasks.core.ply import SplatModel
from tasks.core.progress import Progress, ProgressCallback, ignore_progress
from tasks.core.sog import layout
from tasks.core.sog.axes import with_least_rotation
from tasks.core.sog.bundle import write_files
from tasks.core.sog.encoder import Encoder, Pictures
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.precision import FINEST, Precision
from tasks.core.sog.storable import require_storable
from tasks.core.sog.threads import THREADS

GENERATOR = "spaceport"
_NOTHING = 1e-4  # a coefficient below it moves no channel of any colour by a tenth of 1/255


def write_sog(
    gaussians: Gaussians,
    path: Path,
    options: CompressOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
    precision: Precision = FINEST,
    model: SplatModel = "default",
) -> None:
    """Write SOG v2: a .sog, or a folder of files when `path` ends in meta.json. The order is not kept.

    The same Gaussians and options give the same bytes. model: how they were trained to be drawn.

    Raises FormatError when the Gaussians hold numbers that cannot be stored, DestinationError when the file cannot
    be written. Nothing is left at `path` after an error.
    """
    options = options or CompressOptions()
    require_storable(gaussians)
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
    """The highest wanted degree of spherical harmonics whose coefficients say anything."""
    degree = min(options.sh_degree, gaussians.sh_degree)
    least = max(_NOTHING, (precision.sh_step or 0.0) / 2)
    while degree:
        band = gaussians.shN[:, SH_COEFFICIENTS[degree - 1] - 1 : SH_COEFFICIENTS[degree] - 1]
        if max(band.max(), -band.min()) > least:
            break
        degree -= 1
    return degree
