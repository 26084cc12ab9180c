"""Errors of a .sog against the Gaussians it was made of, and between two programs' readings of it."""

from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import expit

from tasks.core.gaussians import Gaussians
from tasks.core.ply import read_ply
from tasks.core.sog.attributes import log_positions
from tasks.core.sog.reader import read_sog


def errors(source: Gaussians, sog: Path) -> dict[str, float]:
    """Root mean square errors by attribute."""
    back = _matched(source, read_sog(sog))

    def rms(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))

    unit = source.quats / np.linalg.norm(source.quats, axis=1, keepdims=True)
    cosine = np.clip(np.abs((unit.astype(np.float64) * back.quats).sum(axis=1)), 0, 1)
    measured = {
        "log position": rms(log_positions(source.means), log_positions(back.means)),
        "rotation (deg)": float(np.sqrt(np.mean(np.degrees(2 * np.arccos(cosine)) ** 2))),
        "log scale": rms(source.log_scales, back.log_scales),
        "log scale, worst": float(np.abs(source.log_scales - back.log_scales).max()),
        "opacity": rms(expit(source.raw_opacities), expit(back.raw_opacities)),
        "sh0": rms(source.sh0, back.sh0),
    }
    if back.sh_degree:
        measured["shN"] = rms(source.shN, back.shN)
    return measured


def _matched(source: Gaussians, back: Gaussians) -> Gaussians:
    """Of the four nearest in log positions the one most alike in scales and colour: rounding can swap neighbours."""
    _, near = cKDTree(log_positions(back.means)).query(log_positions(source.means), k=4)
    unlike = sum(
        (
            (getattr(source, name)[:, None].reshape(len(source), 1, -1) - getattr(back, name).reshape(-1, 3)[near]) ** 2
        ).sum(axis=2)
        for name in ("log_scales", "sh0")
    )
    return back.take(near[np.arange(len(near)), np.argmin(unlike, axis=1)])


def disagreement(ours: Path, decoded_by_peer: Path) -> float:
    """Greatest difference of any number between our reading of our file and the peer's."""
    mine, theirs = read_sog(ours), read_ply(decoded_by_peer)
    names = ("means", "quats", "log_scales", "raw_opacities", "sh0", "shN")
    return max(float(np.abs(getattr(mine, n) - getattr(theirs, n)).max(initial=0)) for n in names)
