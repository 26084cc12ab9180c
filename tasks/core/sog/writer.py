"""Gaussians to a bundled SOG v2 file."""

import io
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import DestinationError, FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.progress import Progress, ProgressCallback, ignore_progress
from tasks.core.sog import attributes, layout
from tasks.core.sog.codebook import make_codebook, nearest_entries
from tasks.core.sog.morton import morton_order
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.palette import make_palette
from tasks.core.sog.webp import encode_webp
from tasks.core.transforms import Float64

GENERATOR = "spaceport"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: the same Gaussians give the same bytes
_THREADS = 2  # pictures that are encoded at the same time
GAUSSIANS_PER_ENTRY = (4, 2, 1)  # how fine a palette can be: each costs about 40 % more bytes than the one before

Pictures = dict[str, NDArray[np.uint8]]


def write_sog(
    gaussians: Gaussians,
    path: Path,
    options: CompressOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
    gaussians_per_entry: int = 2,
) -> None:
    """Write a bundled SOG v2 file. The same Gaussians and options give the same bytes; their order is not kept.

    gaussians_per_entry: how many Gaussians share an entry of the palette of view-dependent colours on average, one of
    GAUSSIANS_PER_ENTRY; what a number costs in dB depends on the scene.

    Raises FormatError when the Gaussians hold numbers that cannot be stored, DestinationError when the file cannot
    be written. Nothing is left at `path` after an error.
    """
    options = options or CompressOptions()
    _require_storable(gaussians)
    t = attributes.log_positions(gaussians.means)
    quantised, mins, maxs = attributes.encode_positions(t)
    order = morton_order(quantised)
    gaussians, quantised = gaussians.take(order), quantised[order]
    on_progress(Progress(0.05, 1, "ordered along a Morton curve"))

    meta, pictures = _encode_base(gaussians, quantised, mins, maxs)
    degree = min(options.sh_degree, gaussians.sh_degree)
    if degree:
        rest = gaussians.shN[:, : SH_COEFFICIENTS[degree] - 1]
        shares = lambda share: on_progress(Progress(0.1 + 0.7 * share, 1, "view-dependent colours"))  # noqa: E731
        meta["shN"], sh_pictures = _encode_sh(
            rest, degree, palette_entries(len(gaussians), gaussians_per_entry, options.max_palette), shares
        )
        pictures |= sh_pictures
    on_progress(Progress(0.8, 1, f"encoding {len(pictures)} pictures"))
    with ThreadPoolExecutor(_THREADS) as pool:
        encoded = list(pool.map(lambda pixels: encode_webp(pixels, options.webp_effort), pictures.values()))
    text = layout.Meta.model_validate(meta).model_dump_json(exclude_none=True)
    _write_zip(path, {layout.META_FILE: text.encode(), **dict(zip(pictures, encoded, strict=True))})
    on_progress(Progress(1, 1, f"{path.stat().st_size / 1e6:.1f} MB"))


def _require_storable(gaussians: Gaussians) -> None:
    n = len(gaussians)
    if n == 0:
        raise FormatError("There are 0 Gaussians; a .sog needs at least 1.")
    if max(layout.picture_size(n)) > layout.MAX_WEBP_SIDE:
        raise FormatError(
            f"{n:,} Gaussians do not fit into one .sog (at most {layout.MAX_WEBP_SIDE**2:,}); prune them."
        )
    for field in fields(gaussians):
        array = getattr(gaussians, field.name).reshape(n, -1)
        # an infinite logit is an opacity of exactly 0 or 1, which 8 bits can hold
        bad = np.isnan(array) if field.name == "raw_opacities" else ~np.isfinite(array)
        count = int(bad.any(axis=1).sum())
        if count:
            raise FormatError(
                f"{field.name} of {count:,} of {n:,} Gaussians are not finite numbers (the first is number "
                f"{int(bad.any(axis=1).argmax())}); remove those Gaussians."
            )
    zero = int((np.abs(gaussians.quats).max(axis=1) == 0).sum())
    if zero:
        raise FormatError(f"quats of {zero:,} of {n:,} Gaussians are zero, so they have no rotation; remove them.")


def _encode_base(
    gaussians: Gaussians, quantised: attributes.UInt16, mins: Float64, maxs: Float64
) -> tuple[dict[str, object], Pictures]:
    """Everything but shN: meta.json's parts and the pictures by file name."""
    n = len(gaussians)
    size = layout.picture_size(n)
    scales = make_codebook(gaussians.log_scales.ravel())
    colors = make_codebook(gaussians.sh0.ravel())
    opaque = np.full((n, 1), 255, np.uint8)
    scale_indices = nearest_entries(gaussians.log_scales.ravel(), scales).reshape(n, 3)
    color_indices = nearest_entries(gaussians.sh0.ravel(), colors).reshape(n, 3)
    alpha = attributes.encode_opacities(gaussians.raw_opacities)[:, None]
    pictures = {
        "means_l.webp": _picture(np.hstack([(quantised & 255).astype(np.uint8), opaque]), size),
        "means_u.webp": _picture(np.hstack([(quantised >> 8).astype(np.uint8), opaque]), size),
        "quats.webp": _picture(attributes.encode_quats(gaussians.quats), size),
        "scales.webp": _picture(np.hstack([scale_indices, opaque]), size),
        "sh0.webp": _picture(np.hstack([color_indices, alpha]), size),
    }
    meta: dict[str, object] = {
        "version": 2,
        "asset": {"generator": GENERATOR},
        "count": n,
        "means": {"mins": mins.tolist(), "maxs": maxs.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": _shortest(scales), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": _shortest(colors), "files": ["sh0.webp"]},
    }
    return meta, pictures


def _encode_sh(
    rest: Float32, degree: int, entries: int, on_share: Callable[[float], None]
) -> tuple[dict[str, object], Pictures]:
    """View-dependent colour [N, K, 3]: its part of meta.json and the two pictures."""
    n, coefficients, _ = rest.shape
    palette = make_palette(np.ascontiguousarray(rest.reshape(n, -1)), entries, on_share)
    uses = np.bincount(palette.labels, minlength=len(palette.entries)).astype(np.float64)
    codebook = make_codebook(palette.entries.ravel(), np.repeat(uses, palette.entries.shape[1]))
    indices = nearest_entries(palette.entries.ravel(), codebook).reshape(-1, coefficients, 3)
    # 64 entries side by side in a row, the coefficients of an entry one after another
    width, height = layout.palette_size(len(palette.entries), coefficients)
    centroids = np.full((len(palette.entries) * coefficients, 4), 255, np.uint8)
    centroids[:, :3] = indices.reshape(-1, 3)
    labels = np.zeros((n, 4), np.uint8)
    labels[:, 0], labels[:, 1], labels[:, 3] = palette.labels & 255, palette.labels >> 8, 255
    pictures = {
        "shN_centroids.webp": _picture(centroids, (width, height)),
        "shN_labels.webp": _picture(labels, layout.picture_size(n)),
    }
    meta: dict[str, object] = {
        "count": len(palette.entries),
        "bands": degree,
        "codebook": _shortest(codebook),
        "files": list(pictures),
    }
    return meta, pictures


def palette_entries(count: int, gaussians_per_entry: int, max_palette: int) -> int:
    """How many palette entries `count` Gaussians get: their share within 1,024 and `max_palette`."""
    return min(max_palette, max(1024, count // gaussians_per_entry))


def _picture(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels [N, 4] row by row in a picture [height, width, 4]; those left over repeat the last, which costs least."""
    width, height = size
    filled = np.empty((width * height, 4), np.uint8)
    filled[: len(pixels)], filled[len(pixels) :] = pixels, pixels[-1]
    return filled.reshape(height, width, 4)


def _shortest(values: Float32) -> list[float]:
    """The shortest decimals that still name the same float32 numbers."""
    return [float(str(value)) for value in values]


def _write_zip(path: Path, members: dict[str, bytes]) -> None:
    """A zip that viewers read: members stored, no comment, no zip64."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # or it names the writer's operating system
            archive.writestr(info, data)
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(buffer.getvalue())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DestinationError(f"{path} cannot be written: {error.strerror}.") from error
