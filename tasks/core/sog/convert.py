"""Convert a splat to another format, as the file names say. The compressed .ply of PlayCanvas can only be read.

A compressed .ply has 16 bytes a Gaussian, relative to the bounds of a chunk of 256:
https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/ply/#compressed-ply-format
"""

from dataclasses import dataclass
from pathlib import Path

from tasks.core.sog import quick_start  # noqa: F401 - before anything else loads numpy or numba

# isort: split
import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData

from tasks.core.errors import DestinationError, FormatError
from tasks.core.gaussians import SH_C0, SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.ply import SplatModel, gaussians_of_ply, has_filter, has_rgb, model_of_ply, open_ply, write_ply
from tasks.core.progress import ProgressCallback, ignore_progress
from tasks.core.sog.layout import LOD_META_FILE, META_FILE, is_lod_meta, is_meta
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.reader import read_sog_and_model
from tasks.core.sog.storable import require_numbers, without_invalid, without_rotation
from tasks.core.sog.streamed_reader import read_streamed
from tasks.core.sog.writer import write_sog

_PER_CHUNK = 256
_SH_RANGE = 8.0  # coefficients of a byte are within ±4
_OPACITY_CLAMP = 1e-6  # opacities 0 and 1 have no logit
_PARTS = ("position", "rotation", "scale", "color")


# Formats of other programs, which splat-transform reads.
_OTHER_SUFFIXES = (".splat", ".ksplat", ".spz", ".lcc", ".lcc2")
_CAN_BE_READ = "only .ply, .compressed.ply, .sog, meta.json and lod-meta.json can be read"
_RGB_NOTE = (
    "{} has red, green and blue instead of f_dc, as nerfstudio writes with --ply-color-mode rgb: they are the splat's "
    "colours, the same from every side."
)
_FILTER_NOTE = "{} has filter_3D, as Mip-Splatting writes: it is applied to the sizes and opacities."


@dataclass(frozen=True)
class Splat:
    """What a file contains, and in `notes` a sentence for each thing about it that a user should know."""

    gaussians: Gaussians
    model: SplatModel
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Converted:
    """How many Gaussians were written, and sentences about what became of the others and of unusual ones."""

    count: int
    notes: tuple[str, ...]


def read_splat(path: Path) -> Splat:
    """Read a .ply, plain or compressed; a .sog; a meta.json or lod-meta.json, or the folder of one of them.

    Of a splat in levels of detail, the finest level is read. Raises FormatError.
    """
    suffix = path.suffix.lower()
    if suffix == ".ply":
        data = open_ply(path)
        if is_compressed(data):
            return Splat(read_compressed(data, path.name), model_of_ply(data))
        said = ((has_rgb(data), _RGB_NOTE), (has_filter(data), _FILTER_NOTE))
        notes = tuple(note.format(path.name) for holds, note in said if holds)
        return Splat(gaussians_of_ply(data, path.name), model_of_ply(data), notes)
    if is_lod_meta(path):
        return Splat(*read_streamed(path))
    if path.is_dir() and not (path / META_FILE).exists():
        if not (path / LOD_META_FILE).exists():
            raise FormatError(f"{path.name} has no {META_FILE} and no {LOD_META_FILE}: name the file of the splat.")
        return Splat(*read_streamed(path / LOD_META_FILE))
    if suffix == ".sog" or is_meta(path) or path.is_dir():
        return Splat(*read_sog_and_model(path))
    if suffix in _OTHER_SUFFIXES:
        raise FormatError(
            f"{path.name}: {_CAN_BE_READ}. Convert it first, with splat-transform for example: "
            f"npx @playcanvas/splat-transform {path.name} {path.stem}.ply"
        )
    raise FormatError(f"{path.name}: {_CAN_BE_READ}.")


def convert(
    source: Path,
    target: Path,
    options: CompressOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
    *,
    drop_invalid: bool = False,
) -> Converted:
    """Convert a splat. Options apply when a SOG is written.

    The target is a .ply, a .sog, or a meta.json; the files of an unbundled SOG are written into the folder of that
    meta.json. drop_invalid leaves out Gaussians whose numbers are not finite or that have no rotation.

    Raises FormatError for a source that does not match its name or that holds numbers that are not finite,
    DestinationError for any other target.
    """
    is_sog = target.suffix.lower() == ".sog" or target.name == META_FILE
    if not is_sog and (target.suffix.lower() != ".ply" or target.name.lower().endswith(".compressed.ply")):
        raise DestinationError(f"{target.name}: only .ply, .sog and meta.json can be written.")
    if not target.parent.is_dir():
        raise DestinationError(f"The folder {target.parent} does not exist; create it first.")
    splat = read_splat(source)
    gaussians, notes = splat.gaussians, list(splat.notes)
    total = len(gaussians)
    if drop_invalid:
        gaussians = without_invalid(gaussians)
        notes.append(
            f"{total - len(gaussians):,} of {total:,} Gaussians were left out, because they have numbers that are not "
            "finite or no rotation."
        )
        if total and not len(gaussians):
            raise FormatError(f"{source.name}: none of the {total:,} Gaussians can be kept.")
    require_numbers(gaussians)
    unturned = int(without_rotation(gaussians).sum())
    if unturned:
        notes.append(
            f"{unturned:,} of {total:,} Gaussians have no rotation (a zero quaternion) and are drawn unrotated, as by "
            "other programs; --drop-invalid leaves them out."
        )
    if is_sog:
        write_sog(gaussians, target, options, on_progress, model=splat.model)
    else:
        write_ply(gaussians, target, splat.model)
    return Converted(len(gaussians), tuple(notes))


def is_compressed(data: PlyData) -> bool:
    """Whether a .ply holds packed Gaussians."""
    return "vertex" in data and "packed_position" in (data["vertex"].data.dtype.names or ())


def read_compressed(data: PlyData, name: str) -> Gaussians:
    """Gaussians [N] of a compressed .ply. Raises FormatError that names what is missing."""
    packed = {part: _column(data, "vertex", f"packed_{part}", name) for part in _PARTS}
    n = len(packed["position"])
    if n and -(-n // _PER_CHUNK) != _rows(data, "chunk", name):
        raise FormatError(f"{name}: {n:,} packed Gaussians need {-(-n // _PER_CHUNK)} chunks; chunk has another count.")

    def bounds(kind: str, axes: str) -> tuple[Float32, Float32]:
        low, high = (
            np.stack([_column(data, "chunk", f"{end}_{kind}{axis}", name) for axis in axes], axis=1).astype(np.float32)
            for end in ("min", "max")
        )
        chunk = np.arange(n) // _PER_CHUNK
        return low[chunk], high[chunk]

    def between(shares: Float32, kind: str, axes: str) -> Float32:
        low, high = bounds(kind, axes)
        with np.errstate(over="ignore", invalid="ignore"):  # bounds may be anything: the writers refuse infinities
            return np.asarray(low * (1 - shares) + high * shares, np.float32)

    color = _shares(packed["color"], (24, 16, 8, 0), (8, 8, 8, 8))
    chunk_names = data["chunk"].data.dtype.names or () if n else ()
    rgb = between(color[:, :3], "", "rgb") if "min_r" in chunk_names else color[:, :3]
    with np.errstate(over="ignore", invalid="ignore"):  # bounds of colours may be anything as well
        sh0 = ((rgb - 0.5) / SH_C0).astype(np.float32)[:, None]
    opacity = np.clip(color[:, 3], _OPACITY_CLAMP, 1 - _OPACITY_CLAMP)
    return Gaussians(
        means=between(_shares(packed["position"], (21, 11, 0), (11, 10, 11)), "", "xyz"),
        quats=_rotations(packed["rotation"]),
        log_scales=between(_shares(packed["scale"], (21, 11, 0), (11, 10, 11)), "scale_", "xyz"),
        raw_opacities=np.log(opacity / (1 - opacity)).astype(np.float32),
        sh0=sh0,
        shN=_view_dependence(data, n, name),
    )


def _rows(data: PlyData, element: str, name: str) -> int:
    if element not in data:
        raise FormatError(f"{name} has no element '{element}', which a compressed .ply needs.")
    return int(data[element].count)


def _column(data: PlyData, element: str, prop: str, name: str) -> NDArray[np.uint32]:
    _rows(data, element, name)
    rows = data[element].data
    if prop not in (rows.dtype.names or ()):
        raise FormatError(f"{name} has no property '{prop}' of element '{element}', which a compressed .ply needs.")
    if element == "vertex" and (rows.dtype[prop].kind, rows.dtype[prop].itemsize) != ("u", 4):
        raise FormatError(f"{name}: '{prop}' is {rows.dtype[prop]}; a compressed .ply packs into uint.")
    return np.asarray(rows[prop])


def _shares(packed: NDArray[np.uint32], shifts: tuple[int, ...], bits: tuple[int, ...]) -> Float32:
    """Bit fields as shares of their greatest value [N, len(shifts)]."""
    fields = [
        ((packed >> shift) & ((1 << width) - 1)) / ((1 << width) - 1) for shift, width in zip(shifts, bits, strict=True)
    ]
    return np.stack(fields, axis=1).astype(np.float32)


def _rotations(packed: NDArray[np.uint32]) -> Float32:
    """Quaternions wxyz [N, 4] from the three smallest components in 10 bits each and the largest's index in 2 bits."""
    rest = (_shares(packed, (20, 10, 0), (10, 10, 10)).astype(np.float64) - 0.5) * np.sqrt(2)
    largest = np.sqrt(np.maximum(0.0, 1 - (rest**2).sum(axis=1)))
    index = (packed >> 30).astype(np.intp)
    quats = np.empty((len(packed), 4))
    for component in range(4):
        rows = index == component
        others = [other for other in range(4) if other != component]
        quats[np.ix_(rows, others)] = rest[rows]
        quats[rows, component] = largest[rows]
    return quats.astype(np.float32)


def _view_dependence(data: PlyData, n: int, name: str) -> Float32:
    if "sh" not in data:
        return np.zeros((n, 0, 3), np.float32)
    names = data["sh"].data.dtype.names or ()
    rest = len(names) // 3
    if len(names) != 3 * rest or rest + 1 not in SH_COEFFICIENTS or _rows(data, "sh", name) != n:
        raise FormatError(f"{name}: element 'sh' has {len(names)} properties and {data['sh'].count:,} rows.")
    shN = np.empty((n, rest, 3), np.float32)
    for column in range(3 * rest):
        value = _column(data, "sh", f"f_rest_{column}", name).astype(np.float32)
        share = np.where(value == 0, 0, np.where(value == 255, 1, (value + 0.5) / 256))
        shN[:, column % rest, column // rest] = (share - 0.5) * _SH_RANGE
    return shN
