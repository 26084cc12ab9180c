"""A splat in levels of detail that a viewer loads by place: lod-meta.json and a SOG for each leaf and level.

Specification: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/streamed-sog
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Gaussians
from tasks.core.ply import SplatModel
from tasks.core.progress import Progress, ProgressCallback, ignore_progress
from tasks.core.sog.layout import LOD_META_FILE, META_FILE
from tasks.core.sog.levels import coarser, ellipsoid_axes
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.precision import FINEST, Precision
from tasks.core.sog.writer import GENERATOR, write_sog
from tasks.core.transforms import Float64

_LEAF_COUNT = 128 * 1024  # of the finest level: about 1.5 MB, what a viewer loads at once
_SHARE = 0.25  # of a level's Gaussians that the next one has: a step in distance by two
_COARSEST_COUNT = 50_000
_MOST_LEVELS = 5


@dataclass(frozen=True)
class _Leaf:
    """Which Gaussians of each level lie in one box of the tree."""

    levels: tuple[Gaussians, ...]


@dataclass(frozen=True)
class _Branch:
    children: tuple["_Leaf | _Branch", "_Leaf | _Branch"]


def write_streamed(
    gaussians: Gaussians,
    folder: Path,
    options: CompressOptions | None = None,
    on_progress: ProgressCallback = ignore_progress,
    precision: Precision = FINEST,
    model: SplatModel = "default",
    leaf_count: int = _LEAF_COUNT,
    coarsest_count: int = _COARSEST_COUNT,
) -> int:
    """Write `folder`/lod-meta.json and what it names; returns the bytes of all files.

    Level 0 are all Gaussians; each further one has a quarter of them, down to about `coarsest_count`. Raises as
    `write_sog`.
    """
    levels = [gaussians]
    while len(levels[-1]) > coarsest_count and len(levels) < _MOST_LEVELS:
        levels.append(coarser(levels[-1], max(1, int(len(levels[-1]) * _SHARE))))
        on_progress(Progress(0.2 * len(levels) / _MOST_LEVELS, 1, f"level {len(levels) - 1}"))
    tree = _split(tuple(levels), leaf_count)
    leaves = list(_leaves(tree))
    files: list[str] = []
    described: dict[int, dict[str, Any]] = {}
    for done, leaf in enumerate(leaves, start=1):
        lods = {}
        for level, part in enumerate(leaf.levels):
            if len(part):
                lods[str(level)] = {"file": len(files), "offset": 0, "count": len(part)}
                files.append(f"{level}_{done - 1}/{META_FILE}")
                write_sog(part, folder / files[-1], options, precision=precision, model=model)
        described[id(leaf)] = {"bound": _bound(leaf.levels), "lods": lods}
        on_progress(Progress(0.2 + 0.8 * done / len(leaves), 1, f"part {done}/{len(leaves)}"))
    meta = {
        "version": 1,
        "asset": {"generator": GENERATOR},
        "count": sum(len(level) for level in levels),
        "counts": [len(level) for level in levels],
        "lodLevels": len(levels),
        "filenames": files,
        "tree": _describe(tree, described),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOD_META_FILE).write_text(json.dumps(meta), encoding="utf-8")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _split(levels: tuple[Gaussians, ...], most: int) -> _Leaf | _Branch:
    """Boxes halved across their longest side, at the median of the finest level, until few enough are left."""
    finest = levels[0].means
    extent = np.ptp(finest, axis=0) if len(finest) else np.zeros(3)
    axis = int(np.argmax(extent))
    if len(finest) <= most or extent[axis] == 0:
        return _Leaf(levels)
    cut = np.median(finest[:, axis])
    lower = tuple(level.take(level.means[:, axis] < cut) for level in levels)
    upper = tuple(level.take(level.means[:, axis] >= cut) for level in levels)
    if not len(lower[0]) or not len(upper[0]):  # more than half of all lie in one plane
        return _Leaf(levels)
    return _Branch((_split(lower, most), _split(upper, most)))


def _leaves(node: _Leaf | _Branch) -> list[_Leaf]:
    return [node] if isinstance(node, _Leaf) else [leaf for child in node.children for leaf in _leaves(child)]


def _describe(node: _Leaf | _Branch, described: dict[int, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(node, _Leaf):
        return described[id(node)]
    children = [_describe(child, described) for child in node.children]
    low = np.min([child["bound"]["min"] for child in children], axis=0)
    high = np.max([child["bound"]["max"] for child in children], axis=0)
    return {"bound": {"min": low.tolist(), "max": high.tolist()}, "children": children}


def _bound(levels: tuple[Gaussians, ...]) -> dict[str, list[float]]:
    """The box around the ellipsoids of one standard deviation."""
    boxes = [_boxes(level) for level in levels if len(level)]
    low = np.min([low.min(axis=0) for low, _ in boxes], axis=0)
    high = np.max([high.max(axis=0) for _, high in boxes], axis=0)
    return {"min": _rounded(low), "max": _rounded(high)}


def _boxes(gaussians: Gaussians) -> tuple[Float64, Float64]:
    half = np.sqrt((ellipsoid_axes(gaussians) ** 2).sum(axis=2))
    return gaussians.means - half, gaussians.means + half


def _rounded(values: NDArray[np.floating]) -> list[float]:
    return [float(f"{value:.7g}") for value in values]
