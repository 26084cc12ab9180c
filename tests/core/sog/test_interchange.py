"""Files of the format's reference program, @playcanvas/splat-transform 3.7.0.

Made with `terrain(120, 1, seed=9)` as a.ply: `splat-transform -g cpu a.ply splat_transform.sog`, and decoded again by
the same program: `splat-transform splat_transform.sog splat_transform.ply`. The other direction, that program reading
ours, is part of `make bench-sog`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from tasks.core.gaussians import Gaussians
from tasks.core.ply import read_ply, write_ply
from tasks.core.sog.attributes import encode_quats, log_positions
from tasks.core.sog.convert import convert, read_splat
from tasks.core.sog.pictures import encode_webp
from tasks.core.sog.reader import read_sog
from tests.core.sog.splats import terrain

GOLDEN = Path(__file__).parent / "golden"


def test_we_read_the_reference_programs_file_as_it_does_itself() -> None:
    ours, theirs = read_sog(GOLDEN / "splat_transform.sog"), read_ply(GOLDEN / "splat_transform.ply")
    assert len(ours) == 120
    assert ours.sh_degree == 1
    for name in ("log_scales", "sh0", "shN"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    # float32 results of exp, log and sqrt, rounded once in one program and twice in the other
    np.testing.assert_allclose(ours.means, theirs.means, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.raw_opacities, theirs.raw_opacities, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.quats, theirs.quats, atol=1e-6)


def test_the_file_holds_what_it_was_made_from() -> None:
    """Against the source: a decoding that both programs get wrong would show here."""
    source, back = terrain(120, 1, seed=9), read_sog(GOLDEN / "splat_transform.sog")
    distance = np.linalg.norm(source.means[:, None] - back.means, axis=2)
    match = distance.argmin(axis=1)
    # that writer truncates: one step of 1/65535 of a range of 3.6 in log positions, up to 6 times that in scene units
    assert distance.min(axis=1).max() < 6e-4 * np.sqrt(3)
    assert np.abs(back.sh0[match] - source.sh0).max() < 0.05  # 256 entries over a range of 4
    unit = source.quats / np.linalg.norm(source.quats, axis=1, keepdims=True)
    assert np.abs((unit * back.quats[match]).sum(axis=1)).min() > np.cos(np.radians(2.2 / 2))  # truncated to 8 bits


def test_we_read_a_compressed_ply_as_that_program_does() -> None:
    """Made with `terrain(300, 1, seed=9)` and decoded by the same program; two chunks, the second not full."""
    splat = read_splat(GOLDEN / "splat_transform.compressed.ply")
    ours = splat.gaussians
    theirs = read_ply(GOLDEN / "decoded_compressed.ply")
    assert splat.model == "default"
    assert len(ours) == 300
    # float32 of the same formulas; an opacity of 255/255 is infinite there and the logit of 1 - 1e-6 here
    for name, tolerance in (("means", 1e-5), ("log_scales", 1e-5), ("quats", 1e-6), ("sh0", 1e-5), ("shN", 1e-6)):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=tolerance, err_msg=name)
    np.testing.assert_allclose(expit(ours.raw_opacities), expit(theirs.raw_opacities), atol=2e-6)


def written_version_1(source: Gaussians, folder: Path) -> Path:
    """SOG version 1 as playcanvas/sogs wrote it, from its readers' formulas: bytes between bounds, no codebooks."""
    n = len(source)
    size = 4 * int(np.ceil(np.sqrt(n) / 4))
    t = log_positions(source.means)
    base = np.column_stack([source.sh0[:, 0], source.raw_opacities])
    labels, rest = np.arange(n), source.shN.shape[1]
    palette = np.zeros((64 * int(np.ceil(n / 64)), rest, 3))
    palette[:n] = source.shN
    quantised = np.rint((t - t.min(axis=0)) / np.ptp(t, axis=0) * 65535).astype(int)

    def part(values: np.ndarray, axis: int | None, *names: str) -> dict[str, Any]:
        low, high = values.min(axis=axis).tolist(), values.max(axis=axis).tolist()
        return {"shape": list(values.shape), "mins": low, "maxs": high, "files": list(names)}

    def picture(name: str, channels: np.ndarray, width: int) -> None:
        pixels = np.full((int(np.ceil(len(channels) / width)) * width, 4), 255, np.uint8)
        pixels[: len(channels), : channels.shape[1]] = channels
        (folder / name).write_bytes(encode_webp(pixels.reshape(-1, width, 4), 1))

    def shares(values: np.ndarray, axis: int | None) -> np.ndarray:
        low, high = values.min(axis=axis), values.max(axis=axis)
        return np.rint((values - low) / (high - low) * 255).astype(np.uint8)

    quats = np.zeros((n, 4), np.uint8)
    encode_quats(source.quats, np.arange(n, dtype=np.uint32), 1, quats)
    picture("means_l.webp", quantised & 255, size)
    picture("means_u.webp", quantised >> 8, size)
    picture("scales.webp", shares(source.log_scales, 0), size)
    picture("quats.webp", quats, size)
    picture("sh0.webp", shares(base, 0), size)
    picture("shN_centroids.webp", shares(palette, None).reshape(-1, 3), 64 * rest)
    picture("shN_labels.webp", np.column_stack([labels & 255, labels >> 8, 0 * labels]), size)
    meta = {
        "means": part(t, 0, "means_l.webp", "means_u.webp"),
        "scales": part(source.log_scales, 0, "scales.webp"),
        "quats": {"shape": [n, 4], "encoding": "quaternion_packed", "files": ["quats.webp"]},
        "sh0": part(base, 0, "sh0.webp"),
        "shN": {**part(palette, None, "shN_centroids.webp", "shN_labels.webp"), "quantization": 8},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_version_1_is_read(tmp_path: Path, degree: int) -> None:
    source = terrain(300, degree)
    splat = read_splat(written_version_1(source, tmp_path))
    back = splat.gaussians
    assert splat.model == "default"
    for name in ("log_scales", "sh0", "raw_opacities", "shN"):
        before, after = getattr(source, name), getattr(back, name)
        # half of one of 255 even steps between the bounds
        assert np.abs(after - before).max() <= 0.5001 * np.ptp(before) / 255, name
    # half of one of 65535 steps of log positions, of which one is at most 6 scene units at that distance
    assert np.abs(back.means - source.means).max() < 6 * 0.5001 * np.ptp(log_positions(source.means)) / 65535 + 1e-6


def test_the_model_travels_through_every_format(tmp_path: Path) -> None:
    write_ply(terrain(40, 1), tmp_path / "a.ply", "antialiased")
    for source, target in (("a.ply", "b.sog"), ("b.sog", "meta.json"), ("meta.json", "c.ply")):
        convert(tmp_path / source, tmp_path / target)
        assert read_splat(tmp_path / target).model == "antialiased"
