"""Undistorting pixels: Pillow's fast path against the integral over each pixel, taken sample by sample."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from PIL import Image

from tasks.core.sfm.scene_writer import undistort_model
from tasks.core.sfm.undistort import Warp, grid_nodes, read_plan, undistort_photo, write_plan

SAMPLES = 6  # to a side of a pixel, in the reference
SOURCE = (1000, 760)


def smooth_picture() -> tuple[Image.Image, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(40, 215, (38, 50, 3), dtype=np.uint8))
    picture = coarse.resize(SOURCE, Image.Resampling.BICUBIC)
    return picture, np.asarray(picture, dtype=np.float64)


def cameras(size: int, k: float = -0.08) -> tuple[pycolmap.Camera, pycolmap.Camera]:
    width, height = SOURCE
    lens = pycolmap.Camera(camera_id=1, model="SIMPLE_RADIAL", width=width, height=height, params=[800, 500, 380, k])
    return lens, pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(max_image_size=size), lens)


def warp_of(lens: pycolmap.Camera, pinhole: pycolmap.Camera) -> Warp:
    """Through the product's own code, by way of a model with one image."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(lens)
    model.add_image_with_trivial_frame(pycolmap.Image(name="a.png", camera_id=1, image_id=1), pycolmap.Rigid3d())
    (warp,) = undistort_model(model, max(pinhole.width, pinhole.height)).values()
    assert model.camera(1).params.tolist() == pinhole.params.tolist()
    return warp


def reference(pixels: NDArray[np.float64], lens: pycolmap.Camera, pinhole: pycolmap.Camera) -> NDArray[np.float64]:
    """Mean of SAMPLES² bilinear samples in each pixel of the pinhole image; formulas of COLMAP's SIMPLE_RADIAL."""
    fx, fy, cx, cy = pinhole.params
    f, lens_cx, lens_cy, k = lens.params
    steps = (np.arange(SAMPLES) + 0.5) / SAMPLES
    total = np.zeros((pinhole.height, pinhole.width, 3))
    for dx in steps:
        for dy in steps:
            u, v = np.meshgrid((np.arange(pinhole.width) + dx - cx) / fx, (np.arange(pinhole.height) + dy - cy) / fy)
            radial = 1 + k * (u * u + v * v)
            x = np.clip(f * u * radial + lens_cx - 0.5, 0, SOURCE[0] - 1.001)
            y = np.clip(f * v * radial + lens_cy - 0.5, 0, SOURCE[1] - 1.001)
            left, top = x.astype(int), y.astype(int)
            right, down = (x - left)[..., None], (y - top)[..., None]
            upper = pixels[top, left] * (1 - right) + pixels[top, left + 1] * right
            lower = pixels[top + 1, left] * (1 - right) + pixels[top + 1, left + 1] * right
            total += upper * (1 - down) + lower * down
    return total / SAMPLES**2


def tolerance(expected: NDArray[np.float64]) -> float:
    """Mean difference in levels of 255: 0.5 for rounding twice, and what a shift by a twentieth of a pixel does."""
    return 0.5 + float(np.abs(np.diff(expected, axis=1)).mean()) / 20


@pytest.mark.parametrize(("size", "kind"), [(150, "png"), (150, "jpg"), (480, "png"), (900, "png")])
def test_undistorted_pixels_are_those_of_the_reference(size: int, kind: str, tmp_path: Path) -> None:
    """A JPEG is decoded at half its size for 150 px, and must come out the same."""
    picture, pixels = smooth_picture()
    source = tmp_path / f"a.{kind}"
    if kind == "jpg":
        picture.save(source, quality=97, subsampling=0)
    else:
        picture.save(source)
    lens, pinhole = cameras(size)
    undistort_photo(source, tmp_path / "out/a.png", warp_of(lens, pinhole))
    found = np.asarray(Image.open(tmp_path / "out/a.png"), dtype=np.float64)
    expected = reference(pixels, lens, pinhole)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < tolerance(expected)
    assert np.abs(found - expected)[2:-2, 2:-2].max() < 12


@pytest.mark.parametrize(
    ("name", "kind"), [("a", "JPEG"), ("a.foo", "JPEG"), ("a.json", "JPEG"), ("a.gif", "JPEG"), ("a.TIF", "TIFF")]
)
def test_a_photo_is_stored_under_whatever_name(name: str, kind: str, tmp_path: Path) -> None:
    """Names in a given model are what another program wrote."""
    picture, _ = smooth_picture()
    picture.save(tmp_path / "source.png")
    undistort_photo(tmp_path / "source.png", tmp_path / name, warp_of(*cameras(150)))
    with Image.open(tmp_path / name) as stored:
        assert (stored.format, stored.mode) == (kind, "RGB")


def test_positions_are_right_between_the_nodes(tmp_path: Path) -> None:
    """The bilinear grid against COLMAP's own camera, at every pixel."""
    lens, pinhole = cameras(480, k=-0.2)
    warp = warp_of(lens, pinhole)
    columns, rows = grid_nodes(warp.width, warp.height, warp.cell)
    assert 16 < len(columns) < 130  # so strong a lens needs a fine grid
    for i in range(len(rows) - 1):
        for j in range(0, len(columns) - 1, 3):
            middle = np.array([[(columns[j] + columns[j + 1]) / 2, (rows[i] + rows[i + 1]) / 2]])
            true = lens.img_from_cam(np.column_stack([pinhole.cam_from_img(middle), [1.0]]))[0]
            found = warp.sources[i : i + 2, j : j + 2].mean(axis=(0, 1))
            assert np.linalg.norm(found - true) * warp.width / warp.source_width < 0.03  # px of the target


def test_weak_lens_has_a_coarse_grid() -> None:
    assert [len(warp_of(*cameras(480, k)).sources[0]) - 1 for k in (0.0, -1e-4)] == [4, 4]


def test_plan_survives_the_file(tmp_path: Path) -> None:
    one, other = (warp_of(*cameras(size)) for size in (200, 300))
    plan = {"x/ä 1.jpg": one, "b.jpg": other, "c.jpg": one}
    write_plan(tmp_path / "plan.npz", plan, {name: Path("/photos of ü") / name for name in plan})
    found = read_plan(tmp_path / "plan.npz")
    assert list(found) == list(plan)
    for name, warp in plan.items():
        read = found[name].warp
        assert found[name].source == Path("/photos of ü") / name
        assert (read.source_width, read.width, read.height, read.cell) == (1000, warp.width, warp.height, warp.cell)
        np.testing.assert_array_equal(read.sources, warp.sources)
    write_plan(tmp_path / "empty.npz", {}, {})
    assert read_plan(tmp_path / "empty.npz") == {}
