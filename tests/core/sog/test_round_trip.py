"""A .sog returns the Gaussians it was made of, within the format's steps."""

import io
import itertools
import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from scipy.special import expit

from tasks.core.gaussians import Gaussians
from tasks.core.progress import Progress
from tasks.core.sog import attributes
from tasks.core.sog.attributes import encode_positions, with_least_rotation
from tasks.core.sog.options import LADDER, CompressOptions
from tasks.core.sog.ordering import spatial_order
from tasks.core.sog.reader import read_sog
from tasks.core.sog.writer import write_sog
from tests.core.sog.splats import terrain


def in_file_order(gaussians: Gaussians) -> Gaussians:
    return gaussians.take(spatial_order(encode_positions(gaussians, None)[0]))


def written(gaussians: Gaussians, folder: Path, **options: int) -> Path:
    path = folder / "a.sog"
    write_sog(gaussians, path, CompressOptions(**options))
    return path


def opacities(gaussians: Gaussians) -> np.ndarray:
    return np.asarray(expit(gaussians.raw_opacities.astype(np.float64)))


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_every_attribute_comes_back_within_its_step(tmp_path: Path, degree: int) -> None:
    source = in_file_order(terrain(2000, degree))
    back = read_sog(written(source, tmp_path))
    assert len(back) == len(source)
    assert back.sh_degree == degree

    # positions: rounding errs by half of 1/65535 of the range of log positions; 1e-6 is float32 at |t| < 3
    t = attributes.log_positions(source.means)
    step = (t.max(axis=0) - t.min(axis=0)) / 65535
    assert (np.abs(attributes.log_positions(back.means) - t) <= step / 2 + 1e-6).all()

    # rotations: half a step of √2/255 in three components, and through |q| = 1 in the fourth (>= 1/2), is 1.1 degrees
    unit = source.quats / np.linalg.norm(source.quats, axis=1, keepdims=True)
    cosine = np.clip(np.abs((unit * back.quats).sum(axis=1)), 0, 1)
    assert np.degrees(2 * np.arccos(cosine)).max() < 1.15
    # even errors of variance step²/12 in three components turn by about 0.36 degrees; truncation by twice that
    assert rms(np.degrees(2 * np.arccos(cosine))) < 0.45

    # opacity: rounding errs by half of 1/255, and without bias (a truncating writer's is -1/510)
    assert np.abs(opacities(back) - opacities(source)).max() <= 0.5 / 255 + 2e-6
    assert abs((opacities(back) - opacities(source)).mean()) < 1e-4

    # codebooks: never worse than 256 even steps over the range
    for name in ("log_scales", "sh0"):
        before, after = getattr(source, name), getattr(back, name)
        assert rms(after - before) < (before.max() - before.min()) / 255 / np.sqrt(12)

    if degree:
        # 1024 entries for 2000 Gaussians: what is lost is less than the noise in the data has in amplitude (0.01)
        assert rms(back.shN - source.shN) < 0.01


def test_few_distinct_numbers_are_kept_exactly(tmp_path: Path) -> None:
    base = terrain(900, 1)
    few = Gaussians(
        base.means,
        base.quats,
        np.round(base.log_scales * 8) / 8,
        base.raw_opacities,
        np.round(base.sh0 * 16) / 16,
        np.round(base.shN[:1].repeat(900, axis=0) * 64) / 64,
    )
    source, back = in_file_order(few), read_sog(written(few, tmp_path))
    for name in ("log_scales", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(back, name), getattr(source, name))


def test_the_same_gaussians_give_the_same_bytes(tmp_path: Path) -> None:
    gaussians = terrain(3000)
    first = written(gaussians, tmp_path).read_bytes()
    assert written(gaussians, tmp_path).read_bytes() == first


@pytest.mark.parametrize("count", [1, 2, 63, 65])
def test_small_counts(tmp_path: Path, count: int) -> None:
    source = in_file_order(terrain(count))
    back = read_sog(written(source, tmp_path))
    # float32 of expm1 and log1p: 1e-6 relative; with one Gaussian nothing is quantised but rotation and opacity
    np.testing.assert_allclose(back.means, source.means, rtol=1e-4, atol=1e-4)
    # at most 256 distinct numbers of one kind up to 5 Gaussians at degree 3
    if count <= 2:
        np.testing.assert_array_equal(back.shN, source.shN)


def test_gaussians_that_are_all_alike(tmp_path: Path) -> None:
    one = terrain(1)
    many = one.take(np.zeros(5000, np.intp))
    back = read_sog(written(many, tmp_path))
    assert len(back) == 5000
    for name in ("log_scales", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(back, name), getattr(many, name))
    np.testing.assert_allclose(back.means, many.means, rtol=1e-6)  # float32 through log and exp


def test_infinite_logits_are_opacity_zero_and_one(tmp_path: Path) -> None:
    base = terrain(4)
    logits = np.array([np.inf, -np.inf, 80, -800], np.float32)
    source = Gaussians(base.means, base.quats, base.log_scales, logits, base.sh0, base.shN)
    back = opacities(read_sog(written(source, tmp_path)))
    # logits are clamped to those of 1e-6 and 1 - 1e-6
    np.testing.assert_allclose(back, opacities(in_file_order(source)), atol=1.1e-6)


def test_options_change_what_they_say(tmp_path: Path) -> None:
    gaussians = terrain(4000)
    full = written(gaussians, tmp_path).read_bytes()
    slow = written(gaussians, tmp_path, webp_effort=5)
    back_slow = read_sog(slow)
    assert slow.read_bytes() != full
    cut = written(gaussians, tmp_path, sh_degree=1)
    assert read_sog(cut).sh_degree == 1
    assert cut.stat().st_size < len(full)
    small = written(gaussians, tmp_path, max_palette=64)
    assert small.stat().st_size < len(full)
    assert len(np.unique(read_sog(small).shN, axis=0)) <= 64
    back = read_sog(written(gaussians, tmp_path))
    for field in fields(back):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(back_slow, field.name))


def test_the_bundle_is_a_zip_as_viewers_want_it(tmp_path: Path) -> None:
    """PlayCanvas looks for the end record in the last 22 bytes and knows no zip64."""
    data = written(terrain(300, 1), tmp_path).read_bytes()
    assert data[-22:-18] == b"PK\x05\x06"
    assert b"PK\x06\x06" not in data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist()[0] == "meta.json"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_an_unbundled_folder_reads_the_same(tmp_path: Path) -> None:
    path = written(terrain(300, 1), tmp_path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    bundled = read_sog(path)
    for place in (tmp_path / "folder", tmp_path / "folder" / "meta.json"):
        back = read_sog(place)
        for field in fields(back):
            np.testing.assert_array_equal(getattr(back, field.name), getattr(bundled, field.name))


def test_progress_never_goes_back(tmp_path: Path) -> None:
    seen: list[Progress] = []
    write_sog(terrain(3000), tmp_path / "a.sog", on_progress=seen.append)
    shares = [progress.done / progress.total for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def covariances(gaussians: Gaussians) -> np.ndarray:
    rotation = Rotation.from_quat(gaussians.quats.astype(np.float64), scalar_first=True).as_matrix()
    scaled = rotation * np.exp(gaussians.log_scales.astype(np.float64))[:, None, :]
    return np.asarray(scaled @ scaled.transpose(0, 2, 1))


def test_axes_named_anew_are_the_same_ellipsoids() -> None:
    source = terrain(3000, 0)
    turned = with_least_rotation(source)
    # float32 quaternions: 1e-6 of the largest axis squared
    np.testing.assert_allclose(covariances(turned), covariances(source), atol=1e-6)
    unit = turned.quats / np.linalg.norm(turned.quats, axis=1, keepdims=True)
    # the fundamental zone of the cube's 24 rotations reaches 62.8 degrees (Mackenzie, Biometrika 45, 1958)
    assert np.abs(unit[:, 0]).min() > np.cos(np.radians(62.8 / 2)) - 1e-6


def test_finer_steps_of_the_ladder_cost_bytes_and_lose_less(tmp_path: Path) -> None:
    source = terrain(6000, 1)
    sizes, losses = [], []
    for precision in LADDER:
        write_sog(source, tmp_path / "a.sog", precision=precision)
        back = read_sog(tmp_path / "a.sog")
        distance, match = cKDTree(back.means).query(source.means)
        sizes.append((tmp_path / "a.sog").stat().st_size)
        colors = rms(back.sh0[match] - source.sh0) + rms(back.shN[match] - source.shN)
        # neighbours that rounding brings into each other's place are few: the median tells of the steps
        losses.append((float(np.median(distance)), rms(opacities(back)[match] - opacities(source)), colors))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.5 * sizes[0]
    for kind in range(3):
        of_kind = [loss[kind] for loss in losses]
        assert of_kind[0] > 1.5 * of_kind[-1]
        assert all(coarse > 0.97 * fine for coarse, fine in itertools.pairwise(of_kind))


def test_positions_are_rounded_to_a_share_of_the_gaussians_size(tmp_path: Path) -> None:
    source = terrain(5000, 0)
    size = np.exp(np.median(source.log_scales, axis=1))
    quantised, mins, maxs = encode_positions(source, 0.2)
    moved = np.abs(attributes.decode_positions(quantised, mins, maxs) - source.means).max(axis=1)
    assert 0.02 < np.median(moved / size) < 0.2  # even errors: a half of the greatest; a power of two: a half again
    exact = encode_positions(source, None)[0]
    assert len(np.unique(quantised)) < len(np.unique(exact)) / 4


def test_bands_that_say_nothing_are_dropped(tmp_path: Path) -> None:
    base = terrain(400, 3)
    shN = base.shN.copy()
    shN[:, 3:] = 1e-6
    flat = replace(base, shN=shN)
    back = read_sog(written(flat, tmp_path))
    assert back.sh_degree == 1
    assert read_sog(written(replace(flat, shN=np.zeros_like(shN)), tmp_path)).sh_degree == 0


def test_a_folder_holds_what_the_bundle_holds(tmp_path: Path) -> None:
    source = terrain(500, 1)
    write_sog(source, tmp_path / "made" / "meta.json")
    with zipfile.ZipFile(written(source, tmp_path)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == members


def test_the_model_is_kept(tmp_path: Path) -> None:
    write_sog(terrain(30, 0), tmp_path / "a.sog", model="antialiased")
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        assert json.loads(archive.read("meta.json"))["model"] == "antialiased"
    with zipfile.ZipFile(written(terrain(30, 0), tmp_path)) as archive:
        assert "model" not in json.loads(archive.read("meta.json"))
