from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS, Gaussians
from tasks.core.ply import read_ply, write_ply


def random_gaussians(n: int, degree: int) -> Gaussians:
    rng = np.random.default_rng(degree)

    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rest = SH_COEFFICIENTS[degree] - 1
    return Gaussians(values(n, 3), values(n, 4), values(n, 3), values(n), values(n, 1, 3), values(n, rest, 3))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path: Path, degree: int) -> None:
    written = random_gaussians(17, degree)
    write_ply(written, tmp_path / "a.ply")
    read = read_ply(tmp_path / "a.ply")
    assert read.sh_degree == degree
    for name, array in vars(written).items():
        assert np.array_equal(array, getattr(read, name)), name


def test_rest_is_channel_major(tmp_path: Path) -> None:
    """The layout of the 3DGS paper's code: f_rest_0 … f_rest_14 are red."""
    gaussians = random_gaussians(2, 3)
    write_ply(gaussians, tmp_path / "a.ply")
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    assert np.array_equal(vertex["f_rest_1"], gaussians.shN[:, 1, 0])
    assert np.array_equal(vertex["f_rest_15"], gaussians.shN[:, 0, 1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a splat"),
        (b"hello", "is not a splat"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "no property"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=says):
        read_ply(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        read_ply(tmp_path / "none.ply")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    write_ply(random_gaussians(17, 1), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="cut short"):
        read_ply(path)


def exported(splat: Gaussians, path: Path, kind: str) -> None:
    """A .ply as other programs write it."""
    write_ply(splat, path)
    rows = PlyData.read(str(path), mmap=False)["vertex"].data
    names = list(rows.dtype.names)
    extra = {"inria": ["nx", "ny", "nz"], "nerfstudio": ["nx", "ny", "nz"], "mixed types": ["red"]}.get(kind, [])
    order = names[:3] + extra + names[3:]
    if kind == "nerfstudio":  # opacity before colours
        order = [*names[:3], *extra, "opacity", *(name for name in names[3:] if name != "opacity")]
    types = dict.fromkeys(order, "f4")
    if kind == "mixed types":
        types |= {"x": "f8", "opacity": "f8", "red": "u1"}
    other = np.zeros(len(rows), [(name, types[name]) for name in order])
    for name in names:
        other[name] = rows[name]
    elements = [PlyElement.describe(other, "vertex")]
    if kind == "empty faces":
        faces = np.empty(0, [("vertex_indices", "i4", (3,))])
        elements.append(PlyElement.describe(faces, "face"))
    PlyData(elements, text=kind == "text", byte_order=">" if kind == "big endian" else "<").write(str(path))


KINDS = ["inria", "nerfstudio", "gsplat", "mixed types", "text", "big endian", "empty faces"]


@pytest.mark.parametrize("degree", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_other_programs_files_are_read(tmp_path: Path, kind: str, degree: int) -> None:
    splat = random_gaussians(9, degree)
    exported(splat, tmp_path / "a.ply", kind)
    read = read_ply(tmp_path / "a.ply")
    for name, array in vars(splat).items():
        # text has nine digits at most, which a float32 needs
        np.testing.assert_allclose(getattr(read, name), array, rtol=1e-6 if kind == "text" else 0, err_msg=name)
        assert getattr(read, name).dtype == np.float32


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"element vertex 17", b"element vertex 99999999999", "vertex is 99,999,999,999"),
        (b"element vertex 17", b"element vertex -3", "element vertex -3"),
        (b"element vertex 17", b"element vertex 18", "cut short"),
        (b"property float y", b"property float x", "property float x"),
        (b"property float y", b"property list uchar float y", "list 'y'"),
        (b"property float y", b"property quaternion y", "property quaternion y"),
        (b"property float rot_2", b"property float rot_x", "'rot_2'"),
        (b"property float f_rest_8", b"property float f_rest_9", "f_rest_8"),
    ],
)
def test_a_lying_header_is_refused_by_name(tmp_path: Path, old: bytes, new: bytes, says: str) -> None:
    path = tmp_path / "a.ply"
    write_ply(random_gaussians(17, 1), path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(FormatError, match=says):
        read_ply(path)
