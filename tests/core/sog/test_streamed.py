"""Levels of detail: as good a picture as so few Gaussians give, every one at its place, and a tree that finds them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.gaussians import Gaussians
from tasks.core.render.backends import rasterizer_for
from tasks.core.render.metrics import psnr
from tasks.core.sog.reader import read_sog
from tasks.core.sog.streamed import coarser, write_streamed
from tests.core.sog.splats import as_gaussians, terrain
from tests.core.viewer.scenes import looking


def test_a_coarser_level_looks_like_the_finer_one() -> None:
    splat, rasterizer = terrain(8000, 1), rasterizer_for("cpu")
    camera = looking((4, -8, 5), (0, 0, 0.3), size=(240, 150))
    picture = rasterizer.render(splat, camera).copy()

    def likeness_db(other: Gaussians) -> float:
        return psnr(rasterizer.render(other, camera), picture)

    quarter = coarser(splat, 2000)
    assert len(quarter) == 2000
    seen = np.argsort(-splat.raw_opacities - 2 * splat.log_scales.mean(axis=1))
    # pruning alone leaves holes; measured 26 against 17 dB
    assert likeness_db(quarter) > likeness_db(splat.take(np.sort(seen[:2000]))) + 4


def test_two_become_the_one_with_their_moments() -> None:
    pair = as_gaussians(
        means=np.array([[0.0, 0, 0], [2.0, 0, 0]]),
        quats=np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0]]),
        log_scales=np.log([[1.0, 1, 0.5], [1.0, 1, 0.5]]),
        raw_opacities=np.zeros(2),
        sh0=np.array([[[0.2, 0, 0]], [[0.4, 0, 0]]]),
        shN=np.zeros((2, 0, 3)),
    )
    one = coarser(pair, 1)
    np.testing.assert_allclose(one.means, [[1, 0, 0]], atol=1e-6)
    # variance along x: 1 of each and 1 of their distance from the middle
    np.testing.assert_allclose(np.sort(one.log_scales[0]), np.log([0.5, 1, np.sqrt(2)]), atol=1e-5)
    np.testing.assert_allclose(one.sh0[0, 0], [0.3, 0, 0], atol=1e-6)
    opacity = 1 / (1 + np.exp(-one.raw_opacities[0]))
    assert opacity == pytest.approx(2 * 0.5 * 1 / np.sqrt(2), abs=1e-5)  # the same mass over the larger area


def leaves(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "lods" in node:
        return [node]
    assert len(node["children"]) == 2
    for child in node["children"]:
        assert (np.array(child["bound"]["min"]) >= node["bound"]["min"]).all()
        assert (np.array(child["bound"]["max"]) <= node["bound"]["max"]).all()
    return [leaf for child in node["children"] for leaf in leaves(child)]


def test_every_gaussian_is_in_one_leaf_of_its_level(tmp_path: Path) -> None:
    splat = terrain(3000, 1)
    size = write_streamed(splat, tmp_path, leaf_count=500, coarsest_count=300)
    meta = json.loads((tmp_path / "lod-meta.json").read_text())
    assert meta["version"] == 1
    assert meta["counts"] == [3000, 750, 187]
    assert meta["lodLevels"] == 3
    assert meta["count"] == sum(meta["counts"])
    found = leaves(meta["tree"])
    assert len(found) == 8
    assert size == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    total = [0, 0, 0]
    for leaf in found:
        for level, lod in leaf["lods"].items():
            part = read_sog(tmp_path / meta["filenames"][lod["file"]])
            assert len(part) == lod["count"]
            assert lod["offset"] == 0
            # positions are rounded to half of one of 65535 steps of the part's own range, less than 0.01 here
            assert (part.means >= np.array(leaf["bound"]["min"]) - 0.01).all()
            assert (part.means <= np.array(leaf["bound"]["max"]) + 0.01).all()
            total[int(level)] += len(part)
    assert total == meta["counts"]
    assert len(set(meta["filenames"])) == len(meta["filenames"]) == sum(len(leaf["lods"]) for leaf in found)


def test_gaussians_at_one_place_end_the_splitting(tmp_path: Path) -> None:
    one = terrain(1, 0)
    write_streamed(one.take(np.zeros(600, np.intp)), tmp_path, leaf_count=100, coarsest_count=1000)
    assert len(leaves(json.loads((tmp_path / "lod-meta.json").read_text())["tree"])) == 1
