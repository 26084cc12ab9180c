"""Gaussians as .ply, in the layout of the 3D Gaussian Splatting paper's code, which every viewer and editor reads."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_C0, SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.ply_header import PlyFile
from tasks.core.safe_names import reason

SplatModel = Literal["default", "antialiased", "2dgs"]  # how to render a splat; models other than ours are marked

# The comment that Brush, splat-transform and we write, and its words for the models.
_MODEL_COMMENT = "SplatRenderMode"
_MODEL_WORDS: dict[SplatModel, str] = {"default": "default", "antialiased": "mip", "2dgs": "2dgs"}
# Comments that name a model, without letter case and punctuation. `antialiased 1` is Postshot's, `train_flags` a
# proposal (graphdeco-inria/gaussian-splatting#1209), `rasterize_mode` the word of gsplat and nerfstudio.
_MODEL_KEYS = ("splatrendermode", "rasterizemode")
_MODEL_NAMES: dict[str, SplatModel] = {
    **dict.fromkeys(("default", "classic"), "default"),
    **dict.fromkeys(("mip", "antialiased"), "antialiased"),
    "2dgs": "2dgs",
}
_SWITCHES = ("antialiased", "antialiasing", "antialias")
_SWITCHED: dict[str, SplatModel] = {
    **dict.fromkeys(("1", "true", "yes", "on"), "antialiased"),
    **dict.fromkeys(("0", "false", "no", "off"), "default"),
}

_GEOMETRY = ("opacity", "scale_0", "scale_1", "rot_0", "rot_1", "rot_2", "rot_3")  # what a point cloud has not
_RGB = ("red", "green", "blue")
_FILTER = "filter_3D"  # of Mip-Splatting and programs after it: the least width of a Gaussian, in scene units
_FLAT = -math.inf  # log scale of an axis without length


def write_ply(gaussians: Gaussians, path: Path, model: SplatModel = "default") -> None:
    """Write a binary little-endian .ply. `f_rest` is channel-major: all of red, then green, then blue."""
    n, rest = len(gaussians), gaussians.shN.shape[1]
    columns: dict[str, Float32] = {}
    for i, axis in enumerate("xyz"):
        columns[axis] = gaussians.means[:, i]
    for i in range(3):
        columns[f"f_dc_{i}"] = gaussians.sh0[:, 0, i]
    for i in range(3 * rest):
        columns[f"f_rest_{i}"] = gaussians.shN[:, i % rest, i // rest]
    columns["opacity"] = gaussians.raw_opacities
    # Programs that read 2DGS know two scales. A splat that was turned around on its way keeps all three.
    flat = model == "2dgs" and bool((gaussians.log_scales[:, 2:] <= gaussians.log_scales[:, :2]).all())
    for i in range(2 if flat else 3):
        columns[f"scale_{i}"] = gaussians.log_scales[:, i]
    for i in range(4):
        columns[f"rot_{i}"] = gaussians.quats[:, i]
    vertices = np.empty(n, dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        vertices[name] = values
    comments = [] if model == "default" else [f"{_MODEL_COMMENT}: {_MODEL_WORDS[model]}"]
    PlyData([PlyElement.describe(vertices, "vertex")], text=False, byte_order="<", comments=comments).write(str(path))


def read_ply(path: Path) -> Gaussians:
    """Read a splat .ply: ours, Inria's, nerfstudio's or gsplat's; without `f_rest` the degree is 0.

    Raises FormatError, which names the field, if the file is not such a .ply.
    """
    return gaussians_of_ply(open_ply(path), path.name)


def require_regular(path: Path) -> None:
    """Raise FormatError for anything but a regular file, because a FIFO or a device may never end."""
    if path.exists() and not path.is_file():
        raise FormatError(f"{path} is no regular file: give the file that holds the splat.")


def open_ply(path: Path) -> PlyData:
    """Open the elements of a .ply, memory-mapped if it is binary. Its comments contain the ASCII of the file's.

    Never allocates more than the file's size can fill. Raises FormatError.
    """
    try:
        require_regular(path)
        with PlyFile(path) as file:
            data = PlyData.read(file)
            data.comments = [comment.encode("ascii", "ignore").decode() for comment in file.comments]
        return data
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist.") from None
    # plyfile lets some of numpy's errors about damaged numbers pass
    except (PlyParseError, KeyError, IndexError, TypeError, ValueError, OverflowError, MemoryError, OSError) as error:
        raise FormatError(f"{path.name} is not a splat .ply: {reason(error)}.") from error


def gaussians_of_ply(data: PlyData, name: str) -> Gaussians:
    """Return the Gaussians of an opened .ply. Raises FormatError, which names a missing property.

    A 2DGS .ply has no scale_2: that axis has no length. Red, green and blue may replace f_dc (`has_rgb`), and a 3D
    smoothing filter is applied (`has_filter`).
    """
    if "vertex" not in data:
        raise FormatError(f"{name} has no element 'vertex', so it is not a splat .ply.")
    vertices: NDArray[Any] = data["vertex"].data
    present = vertices.dtype.names or ()
    n = len(vertices)
    if {"x", "y", "z"} <= set(present) and not set(_GEOMETRY) & set(present):
        raise FormatError(
            f"{name} has points without opacity, size and rotation: it is a point cloud and not a splat .ply."
        )
    # If all properties are float32, as every exporter writes them, rows are read once for all of their columns.
    plain = all(vertices.dtype[column] == np.dtype("<f4") for column in present)
    table = vertices.view("<f4").reshape(n, len(present)) if plain and present else None

    def columns(*names: str) -> Float32:
        for wanted in names:
            if wanted not in present:
                raise FormatError(f"{name} has no property '{wanted}', so it is not a splat .ply.")
        if table is not None:
            places = [present.index(wanted) for wanted in names]
            if places == list(range(places[0], places[0] + len(places))):
                return np.asarray(table[:, places[0] : places[-1] + 1], np.float32)
        filled = np.empty((n, len(names)), np.float32)
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and is refused later
            for place, wanted in enumerate(names):
                filled[:, place] = vertices[wanted]
        return filled

    def base_colors() -> Float32:
        if not has_rgb(data):
            return np.array(columns("f_dc_0", "f_dc_1", "f_dc_2"))
        colors = columns(*_RGB)
        kind = vertices.dtype["red"]
        most = 1.0 if kind.kind == "f" else 65535.0 if kind == np.uint16 else 255.0
        with np.errstate(invalid="ignore"):  # a NaN is neither
            fits = not n or bool(colors.min() >= 0 and colors.max() <= most)
        if not fits:
            raise FormatError(
                f"{name} has red, green and blue from {colors.min():g} to {colors.max():g} instead of f_dc; whole "
                "numbers, or numbers from 0 to 1, can be read."
            )
        return ((colors / most - 0.5) / SH_C0).astype(np.float32)

    rest = sum(column.startswith("f_rest_") for column in present)
    if rest % 3 or rest // 3 + 1 not in SH_COEFFICIENTS:
        raise FormatError(f"{name} has {rest} f_rest properties; a splat has 0, 9, 24 or 45.")
    sh_rest = np.empty((n, rest // 3, 3), np.float32)
    if rest:
        sh_rest[:] = columns(*(f"f_rest_{i}" for i in range(rest))).reshape(n, 3, rest // 3).transpose(0, 2, 1)
    scales = np.full((n, 3), _FLAT, np.float32)
    axes = 2 if _is_2dgs(present) else 3
    scales[:, :axes] = columns(*(f"scale_{axis}" for axis in range(axes)))
    logits = np.array(columns("opacity")[:, 0])
    if _FILTER in present:
        scales, logits = _filtered(scales, logits, columns(_FILTER))
    return Gaussians(
        means=np.array(columns("x", "y", "z")),
        quats=np.array(columns("rot_0", "rot_1", "rot_2", "rot_3")),
        log_scales=scales,
        raw_opacities=logits,
        sh0=base_colors().reshape(n, 1, 3),
        shN=sh_rest,
    )


def _filtered(log_scales: Float32, logits: Float32, widths: Float32) -> tuple[Float32, Float32]:
    """Log scales [N, 3] and opacities [N] after the 3D smoothing filter of these widths [N, 1].

    Variances add up, and opacity falls as the volume grows: Yu et al., "Mip-Splatting", CVPR 2024, equation 9.
    """
    with np.errstate(all="ignore"):  # any number may be damaged: the writers refuse what is not finite
        sharp = 2 * log_scales.astype(np.float64)
        wide = np.logaddexp(sharp, 2 * np.log(np.abs(widths.astype(np.float64))))
        opacities = np.exp(0.5 * (sharp - wide).sum(axis=1) - np.logaddexp(0, -logits.astype(np.float64)))
        return (wide / 2).astype(np.float32), (np.log(opacities) - np.log1p(-opacities)).astype(np.float32)


def has_filter(data: PlyData) -> bool:
    """Whether the .ply has the 3D smoothing filter of Mip-Splatting, which reading applies."""
    return "vertex" in data and _FILTER in (data["vertex"].data.dtype.names or ())


def has_rgb(data: PlyData) -> bool:
    """Whether colours are red, green and blue instead of f_dc, as nerfstudio writes with --ply-color-mode rgb."""
    present = data["vertex"].data.dtype.names or () if "vertex" in data else ()
    return {*_RGB} <= set(present) and not any(f"f_dc_{i}" in present for i in range(3))


def _is_2dgs(present: tuple[str, ...]) -> bool:
    """Whether these are the properties of a 2DGS .ply, whose Gaussians are flat: all of a splat but scale_2."""
    return {*_GEOMETRY} <= set(present) and "scale_2" not in present


def model_of_ply(data: PlyData) -> SplatModel:
    """Return how to render the splat.

    The properties of a 2DGS .ply are stronger than comments. Otherwise the last comment that names a model decides, as
    in programs that write it. A 3D smoothing filter without such a comment comes from training with antialiasing.
    """
    if "vertex" in data and _is_2dgs(data["vertex"].data.dtype.names or ()):
        return "2dgs"
    known = [model for model in map(_model_of_comment, data.comments) if model is not None]
    return known[-1] if known else "antialiased" if has_filter(data) else "default"


def _model_of_comment(comment: str) -> SplatModel | None:
    """The model that a comment of the header names, if any."""
    key, *values = comment.lower().replace(":", " ").replace("=", " ").split() or [""]
    key = key.replace("_", "").replace("-", "")
    if key in _MODEL_KEYS and len(values) == 1:
        return _MODEL_NAMES.get(values[0])
    if key in _SWITCHES and len(values) == 1:
        return _SWITCHED.get(values[0])
    if key == "trainflags" and any(flag in _SWITCHES for flag in values):
        return "antialiased"
    return None
