"""Lay models of parts over one another by the photos that they have in common.

The rotation, scale and shift between two models are medians over their common photos, so that a few photos that one of
them has wrong do not matter. A model that turns its common photos otherwise, or has them elsewhere, is not merged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.transforms import Float64, rotation_angle_deg

FEWEST_COMMON = 3  # photos that tell how two models lie to each other
MOST_TURNED_DEG = 5.0  # median over the common photos, as between two mappers
MOST_APART = 0.1  # median over them, of their own extent: beside a part that has another shape
ROUNDS = 10  # of reweighting


@dataclass(frozen=True)
class Posed:
    """Cameras of one model."""

    names: tuple[str, ...]
    rotations: Float64  # [N, 3, 3] from the model's world to the camera
    centers: Float64  # [N, 3]

    def moved(self, scale: float, rotation: Float64, shift: Float64) -> "Posed":
        """The same in another world, where a point x is at scale * rotation x + shift."""
        centers = scale * self.centers @ rotation.T + shift
        return Posed(self.names, self.rotations @ rotation.T, centers)


@dataclass(frozen=True)
class Merged:
    """All cameras in one world, and which of the models are in it."""

    poses: dict[str, tuple[Float64, Float64]]  # rotation [3, 3] and centre [3] by name
    taken: tuple[int, ...]  # numbers of the models, in the order of merging
    left_out: tuple[str, ...]  # a phrase for each of the others


def merge(models: Sequence[Posed], own: Sequence[frozenset[str]]) -> Merged:
    """Merge models, beginning with the largest; next is always the one with most photos in common.

    `own` are the photos that each model knows best, being in its middle; their poses are taken from it.
    """
    first = max(range(len(models)), key=lambda i: len(models[i].names))
    placed = {first: models[first]}
    doubts: dict[int, str] = {}
    while True:
        world = _poses(placed, own)
        waiting = [i for i in range(len(models)) if i not in placed]
        common = {i: [name for name in models[i].names if name in world] for i in waiting}
        for i in sorted(waiting, key=lambda i: (-len(common[i]), i)):
            aligned = _aligned(models[i], world, common[i])
            if isinstance(aligned, Posed):
                placed[i] = aligned
                break
            doubts[i] = aligned
        else:
            return Merged(world, tuple(placed), tuple(doubts[i] for i in waiting))


def _poses(placed: dict[int, Posed], own: Sequence[frozenset[str]]) -> dict[str, tuple[Float64, Float64]]:
    poses: dict[str, tuple[Float64, Float64]] = {}
    for known_best in (True, False):
        for i, model in placed.items():
            for name, rotation, center in zip(model.names, model.rotations, model.centers, strict=True):
                if name not in poses and (name in own[i] or not known_best):
                    poses[name] = rotation, center
    return poses


def _aligned(model: Posed, world: dict[str, tuple[Float64, Float64]], common: list[str]) -> Posed | str:
    """The model in the world's frame, or what speaks against it."""
    phrase = f"a part of {len(model.names)} photos"
    if len(common) < FEWEST_COMMON:
        return f"{phrase} has only {len(common)} in common with the scene"
    rows = [model.names.index(name) for name in common]
    theirs = np.stack([world[name][0] for name in common])
    rotation = _mean_rotation(theirs.transpose(0, 2, 1) @ model.rotations[rows])
    turned = model.moved(1.0, rotation, np.zeros(3))
    ours, wanted = turned.centers[rows], np.stack([world[name][1] for name in common])
    scale, shift = _scale_and_shift(ours, wanted)
    moved = turned.moved(scale, np.eye(3), shift)
    turned_deg = float(np.median(rotation_angle_deg(theirs @ moved.rotations[rows].transpose(0, 2, 1))))
    extent = 2 * float(np.median(np.linalg.norm(wanted - np.median(wanted, axis=0), axis=1)))
    apart = float(np.median(np.linalg.norm(moved.centers[rows] - wanted, axis=1))) / max(extent, 1e-12)
    if turned_deg > MOST_TURNED_DEG:
        return f"{phrase} turns {len(common)} common photos by {turned_deg:.0f} degrees (median)"
    if scale <= 0 or apart > MOST_APART:
        return f"{phrase} has {len(common)} common photos {apart:.0%} of their extent away (median)"
    return moved


def _mean_rotation(between: Float64) -> Float64:
    """A rotation that most of the given ones [N, 3, 3] agree with."""
    weight = np.ones(len(between))
    mean = np.eye(3)
    for _ in range(ROUNDS):
        u, _, vt = np.linalg.svd((weight[:, None, None] * between).sum(axis=0))
        mean = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        angle = rotation_angle_deg(between @ mean.T)
        weight = 1 / np.maximum(angle, max(float(np.median(angle)) / 10, 1e-6))  # a median over rotations
    return np.asarray(mean)


def _scale_and_shift(ours: Float64, wanted: Float64) -> tuple[float, Float64]:
    """Scale and shift that lay most of our centres [N, 3] over the wanted ones: medians first, and then refined."""
    first, second = np.triu_indices(len(ours), 1)
    distances = np.linalg.norm(ours[first] - ours[second], axis=1)
    ratios = np.linalg.norm(wanted[first] - wanted[second], axis=1) / np.maximum(distances, 1e-12)
    scale = float(np.median(ratios))
    shift = np.median(wanted - scale * ours, axis=0)
    for _ in range(ROUNDS):
        distance = np.linalg.norm(scale * ours + shift - wanted, axis=1)
        weight = 1 / np.maximum(distance, max(float(np.median(distance)) / 10, 1e-12))
        share = weight[:, None] / weight.sum()
        middle, target = (share * ours).sum(axis=0), (share * wanted).sum(axis=0)
        spread = float((share * (ours - middle) ** 2).sum())
        scale = float((share * (ours - middle) * (wanted - target)).sum()) / max(spread, 1e-300)
        shift = target - scale * middle
    return scale, np.asarray(shift)
