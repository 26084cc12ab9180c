"""Write a splat in levels of detail that a viewer loads by place: lod-meta.json and a SOG for each leaf and level.

Specification: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/streamed-sog

A coarser level is made from the one before: Gaussians that pictures hardly show are pruned, and neighbours are merged
in pairs. Two Gaussians become one with the same mass, mean and covariance (the moments of their mixture). Mass is
opacity times roughly the area that an ellipsoid covers. The pairs that lose least merge first, by Runnalls' bound on
the loss of a mixture, IEEE Trans. Aerospace 43 (2007), https://doi.org/10.1109/TAES.2007.4383588, and by the difference
in colour.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tasks.core.gaussians import Gaussians
from tasks.core.ply import SplatModel
from tasks.core.progress import Progress, ProgressCallback, ignore_progress
from tasks.core.sog.attributes import encode_positions
from tasks.core.sog.layout import LOD_META_FILE, META_FILE
from tasks.core.sog.options import FINEST, CompressOptions, Precision
from tasks.core.sog.ordering import spatial_order
from tasks.core.sog.writer import GENERATOR, write_sog
from tasks.core.transforms import Float64, rotmat_from_quat

_PRUNED = 0.1  # share of the Gaussians that is pruned: the ones with the least mass
_MERGED = 0.3  # greatest share of the pairs that merge before partners are chosen again
_COLOR_WEIGHT = 4.0  # a difference of 0.5 in sh0 counts as much as twice the volume
_THINNEST = 0.1  # of the longest axis: pictures hardly show how flat a flat ellipsoid is
_GREATEST_OPACITY = 0.999

_LEAF_COUNT = 128 * 1024  # of the finest level: about 1.5 MB, which a viewer loads at once
_SHARE = 0.25  # size of the next level, as a share of this one's: for twice the distance
_COARSEST_COUNT = 50_000
_MOST_LEVELS = 5


def coarser(gaussians: Gaussians, count: int) -> Gaussians:
    """The splat approximated by `count` Gaussians, at least one."""
    kept = max(count, math.ceil(len(gaussians) * (1 - _PRUNED)))
    gaussians = gaussians.take(np.sort(np.argsort(-_mass(gaussians), kind="stable")[:kept]))
    shift = 0
    while len(gaussians) > count:
        gaussians = gaussians.take(spatial_order(encode_positions(gaussians, None)[0]).astype(np.intp))
        first = np.arange(shift % 2 if len(gaussians) > 2 else 0, len(gaussians) - 1, 2)  # new partners every time
        merges = min(max(1, int(_MERGED * len(first))), len(gaussians) - count)
        cheapest = first[np.sort(np.argsort(_cost(gaussians, first), kind="stable")[:merges])]
        rest = np.ones(len(gaussians), bool)
        rest[cheapest] = rest[cheapest + 1] = False
        gaussians = _together(gaussians.take(rest), _merged(gaussians, cheapest, cheapest + 1))
        shift += 1
    return gaussians


def _opacities(gaussians: Gaussians) -> Float64:
    return np.asarray(1 / (1 + np.exp(-np.clip(gaussians.raw_opacities.astype(np.float64), -50, 50))))


def _areas(gaussians: Gaussians) -> Float64:
    """The product of the two longest axes [N]."""
    axes = np.sort(gaussians.log_scales.astype(np.float64), axis=1)
    return np.asarray(np.exp(axes[:, 1] + axes[:, 2]))


def _mass(gaussians: Gaussians) -> Float64:
    return _opacities(gaussians) * _areas(gaussians)


def ellipsoid_axes(gaussians: Gaussians, thinnest: float = 0.0) -> Float64:
    """The half axes of ellipsoids of one standard deviation, as columns [N, 3, 3].

    thinnest: no axis is shorter than this share of the longest.
    """
    lengths = np.exp(gaussians.log_scales.astype(np.float64))
    lengths = np.maximum(lengths, thinnest * lengths.max(axis=1, keepdims=True))
    return np.asarray(rotmat_from_quat(gaussians.quats.astype(np.float64)) * lengths[:, None])


def _covariances(gaussians: Gaussians, thinnest: float = 0.0) -> Float64:
    axes = ellipsoid_axes(gaussians, thinnest)
    return np.asarray(axes @ axes.transpose(0, 2, 1))


def _cost(gaussians: Gaussians, first: NDArray[np.intp]) -> Float64:
    """The loss when each Gaussian of `first` merges with the next one."""
    covariances, mass = _covariances(gaussians, _THINNEST), _mass(gaussians)
    volumes = 0.5 * np.log(np.maximum(np.linalg.det(covariances), 1e-300))
    second = first + 1
    share = mass[first] / np.maximum(mass[first] + mass[second], 1e-300)
    offset = (gaussians.means[first] - gaussians.means[second]).astype(np.float64)[:, :, None]
    weight = share[:, None, None]
    merged = weight * covariances[first] + (1 - weight) * covariances[second]
    merged += weight * (1 - weight) * offset @ offset.transpose(0, 2, 1)
    volume = 0.5 * np.log(np.maximum(np.linalg.det(merged), 1e-300))
    grown = volume - share * volumes[first] - (1 - share) * volumes[second]
    color = ((gaussians.sh0[first, 0] - gaussians.sh0[second, 0]) ** 2).sum(axis=1)
    return np.asarray((mass[first] + mass[second]) * (grown + _COLOR_WEIGHT * share * (1 - share) * color))


def _merged(gaussians: Gaussians, a: NDArray[np.intp], b: NDArray[np.intp]) -> Gaussians:
    """One Gaussian for each pair."""
    one, other = gaussians.take(a), gaussians.take(b)
    mass_one, mass_other = _mass(one), _mass(other)
    total = np.maximum(mass_one + mass_other, 1e-300)
    share = (mass_one / total)[:, None]
    weight = share[:, :, None]
    offset = (one.means - other.means).astype(np.float64)[:, :, None]
    covariances = weight * _covariances(one) + (1 - weight) * _covariances(other)
    covariances += weight * (1 - weight) * offset @ offset.transpose(0, 2, 1)
    variances, axes = np.linalg.eigh(covariances)
    axes[:, :, 0] *= np.sign(np.linalg.det(axes))[:, None]  # a rotation, no mirror
    log_scales = 0.5 * np.log(np.maximum(variances, 1e-30))
    opacity = np.clip(total / np.exp(log_scales[:, 1] + log_scales[:, 2]), 1e-6, _GREATEST_OPACITY)
    return Gaussians(
        means=(share * one.means + (1 - share) * other.means).astype(np.float32),
        quats=np.ascontiguousarray(Rotation.from_matrix(axes).as_quat(scalar_first=True), np.float32),
        log_scales=log_scales.astype(np.float32),
        raw_opacities=np.log(opacity / (1 - opacity)).astype(np.float32),
        sh0=(weight * one.sh0 + (1 - weight) * other.sh0).astype(np.float32),
        shN=(weight * one.shN + (1 - weight) * other.shN).astype(np.float32),
    )


def _together(a: Gaussians, b: Gaussians) -> Gaussians:
    names = ("means", "quats", "log_scales", "raw_opacities", "sh0", "shN")
    return Gaussians(**{name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in names})


@dataclass(frozen=True)
class _Leaf:
    """The Gaussians of each level in one box of the tree."""

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
    """Write `folder`/lod-meta.json and the files that it names; returns the bytes of all files.

    Level 0 has all Gaussians; each further level has a quarter of the one before, down to about `coarsest_count`.
    Raises as `write_sog`.
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
    """Halve boxes across their longest side, at the median of the finest level, until each has few enough Gaussians."""
    finest = levels[0].means
    extent = np.ptp(finest, axis=0) if len(finest) else np.zeros(3)
    axis = int(np.argmax(extent))
    if len(finest) <= most or extent[axis] == 0:
        return _Leaf(levels)
    cut = np.median(finest[:, axis])
    lower = tuple(level.take(level.means[:, axis] < cut) for level in levels)
    upper = tuple(level.take(level.means[:, axis] >= cut) for level in levels)
    if not len(lower[0]) or not len(upper[0]):  # more than half of the Gaussians are in one plane
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
