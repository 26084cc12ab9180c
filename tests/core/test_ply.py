from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData

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
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match="is not a splat"):
        read_ply(path)
