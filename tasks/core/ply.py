"""Gaussians as .ply, in the layout of the 3D Gaussian Splatting paper's code, which every viewer and editor reads."""

from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement, PlyParseError

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Float32, Gaussians


def write_ply(gaussians: Gaussians, path: Path) -> None:
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
    for i in range(3):
        columns[f"scale_{i}"] = gaussians.log_scales[:, i]
    for i in range(4):
        columns[f"rot_{i}"] = gaussians.quats[:, i]
    vertices = np.empty(n, dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        vertices[name] = values
    PlyData([PlyElement.describe(vertices, "vertex")], text=False, byte_order="<").write(str(path))


def read_ply(path: Path) -> Gaussians:
    """Read a splat .ply: ours, Inria's, nerfstudio's or gsplat's; without `f_rest` the degree is 0.

    Raises FormatError when the file is not such a .ply, naming the field.
    """
    try:
        vertices = PlyData.read(str(path))["vertex"]
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist.") from None
    except (PlyParseError, KeyError, ValueError, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path.name} is not a splat .ply: {error}.") from error
    present = {prop.name for prop in vertices.properties}

    def columns(*names: str) -> Float32:
        for name in names:
            if name not in present:
                raise FormatError(f"{path.name} has no property '{name}', so it is not a splat .ply.")
        return np.stack([np.asarray(vertices[name], dtype=np.float32) for name in names], axis=1)

    rest = sum(name.startswith("f_rest_") for name in present)
    if rest % 3 or rest // 3 + 1 not in SH_COEFFICIENTS:
        raise FormatError(f"{path.name} has {rest} f_rest properties; a splat has 0, 9, 24 or 45.")
    n = vertices.count
    sh_rest = (
        columns(*(f"f_rest_{i}" for i in range(rest))).reshape(n, 3, rest // 3).transpose(0, 2, 1)
        if rest
        else np.zeros((n, 0, 3), np.float32)
    )
    return Gaussians(
        means=columns("x", "y", "z"),
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        log_scales=columns("scale_0", "scale_1", "scale_2"),
        raw_opacities=columns("opacity")[:, 0].copy(),
        sh0=columns("f_dc_0", "f_dc_1", "f_dc_2").reshape(n, 1, 3),
        shN=np.ascontiguousarray(sh_rest),
    )
