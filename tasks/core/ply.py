"""Gaussians as .ply, in the layout of the 3D Gaussian Splatting paper's code, which every viewer and editor reads."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement, PlyParseError

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Float32, Gaussians
from tasks.core.safe_names import reason

SplatModel = Literal["default", "antialiased", "2dgs"]  # how to render a splat; models other than ours are marked

MAX_GAUSSIANS = 20_000_000  # about 5 GB at degree 3
_MAX_HEADER_BYTES = 1 << 16

# The comment that Brush and splat-transform write and read, and its words for the models.
_MODEL_COMMENT = "SplatRenderMode: "
_MODEL_WORDS: dict[str, SplatModel] = {"default": "default", "mip": "antialiased", "2dgs": "2dgs"}


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
    for i in range(3):
        columns[f"scale_{i}"] = gaussians.log_scales[:, i]
    for i in range(4):
        columns[f"rot_{i}"] = gaussians.quats[:, i]
    vertices = np.empty(n, dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        vertices[name] = values
    word = next(word for word, named in _MODEL_WORDS.items() if named == model)
    comments = [] if model == "default" else [_MODEL_COMMENT + word]
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
    """Open the elements of a .ply, memory-mapped if it is binary.

    Never allocates more than the file's size can fill. Raises FormatError.
    """
    try:
        require_regular(path)
        _check_header(path)
        return PlyData.read(str(path))
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist.") from None
    # plyfile lets some of numpy's errors about damaged numbers pass
    except (PlyParseError, KeyError, IndexError, TypeError, ValueError, OverflowError, MemoryError, OSError) as error:
        raise FormatError(f"{path.name} is not a splat .ply: {reason(error)}.") from error


def _check_header(path: Path) -> None:
    """Raise FormatError if the header declares more than the file can contain, or lists, which no splat has."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head, found, _ = file.read(_MAX_HEADER_BYTES).partition(b"end_header")
    if not head.startswith(b"ply") or not found:
        raise FormatError(f"{path.name} is not a splat .ply: no header ends within {_MAX_HEADER_BYTES:,} bytes.")
    binary, count, least, names = True, 0, len(head) + len("end_header\n"), set[str]()
    for line in head.decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            binary = "ascii" not in words
        elif words[:1] == ["element"]:
            if len(words) != 3 or not words[2].isdecimal() or len(words[2]) > 12:
                raise FormatError(f"{path.name}: '{line.strip()[:80]}' of the header names no number of rows.")
            count, names = int(words[2]), set()
            if words[1] == "vertex" and count > MAX_GAUSSIANS:
                raise FormatError(f"{path.name}: vertex is {count:,}; at most {MAX_GAUSSIANS:,} Gaussians can be read.")
        elif words[:1] == ["property"]:
            if "list" in words and not count:
                continue  # some exporters declare zero faces
            if "list" in words:
                raise FormatError(f"{path.name} has the list '{words[-1][:80]}', so it is a mesh and not a splat .ply.")
            width = _LEAST_TEXT if not binary else _WIDTHS.get(words[1] if len(words) == 3 else "", 0)
            if not width or words[-1] in names:
                raise FormatError(
                    f"{path.name}: '{line.strip()[:80]}' of the header is no property, or is there twice."
                )
            names.add(words[-1])
            least += count * width
    if least - (not binary) > size:  # text may lack its last line break
        raise FormatError(f"{path.name} has {size:,} bytes; its header promises {least:,}. The file is cut short.")


_LEAST_TEXT = 2  # a digit, and a space or line break
_WIDTHS = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}


def gaussians_of_ply(data: PlyData, name: str) -> Gaussians:
    """Return the Gaussians of an opened .ply. Raises FormatError, which names a missing property."""
    if "vertex" not in data:
        raise FormatError(f"{name} has no element 'vertex', so it is not a splat .ply.")
    vertices: NDArray[Any] = data["vertex"].data
    present = vertices.dtype.names or ()
    n = len(vertices)
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

    rest = sum(column.startswith("f_rest_") for column in present)
    if rest % 3 or rest // 3 + 1 not in SH_COEFFICIENTS:
        raise FormatError(f"{name} has {rest} f_rest properties; a splat has 0, 9, 24 or 45.")
    sh_rest = np.empty((n, rest // 3, 3), np.float32)
    if rest:
        sh_rest[:] = columns(*(f"f_rest_{i}" for i in range(rest))).reshape(n, 3, rest // 3).transpose(0, 2, 1)
    return Gaussians(
        means=np.array(columns("x", "y", "z")),
        quats=np.array(columns("rot_0", "rot_1", "rot_2", "rot_3")),
        log_scales=np.array(columns("scale_0", "scale_1", "scale_2")),
        raw_opacities=np.array(columns("opacity")[:, 0]),
        sh0=np.array(columns("f_dc_0", "f_dc_1", "f_dc_2")).reshape(n, 1, 3),
        shN=sh_rest,
    )


def model_of_ply(data: PlyData) -> SplatModel:
    """Return how to render the splat: the last comment that names a model decides, as in programs that write it."""
    words = [line[len(_MODEL_COMMENT) :].strip() for line in data.comments if line.startswith(_MODEL_COMMENT)]
    known = [_MODEL_WORDS[word] for word in words if word in _MODEL_WORDS]
    return known[-1] if known else "default"
