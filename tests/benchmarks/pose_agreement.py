"""Distance between two solutions for the same cameras, after one is aligned with the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.transforms import rotation_angle_deg, similarity_from_points

Poses = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]  # name: cam_from_world rotation [3, 3], centre [3]


@dataclass(frozen=True)
class Agreement:
    """Differences of the common cameras; positions in percent of the extent (twice the greatest from the mean)."""

    cameras: int
    rotation_median_deg: float
    rotation_max_deg: float
    position_median_percent: float
    position_max_percent: float

    def __str__(self) -> str:
        return (
            f"{self.cameras} poses: rotation median {self.rotation_median_deg:.3f}, max {self.rotation_max_deg:.3f} "
            f"deg, position median {self.position_median_percent:.3f} max {self.position_max_percent:.3f} %"
        )


def agreement(reference: Poses, found: Poses) -> Agreement:
    """Lay `found` over `reference` by its centres; rotations are aligned by themselves.

    The rotation of the centres' alignment would add one offset to all.
    """
    names = sorted(reference.keys() & found.keys())
    wanted = np.stack([reference[name][1] for name in names])  # [N, 3]
    centers = np.stack([found[name][1] for name in names])
    scale, rotation, translation = similarity_from_points(centers, wanted)
    extent = 2 * np.linalg.norm(wanted - wanted.mean(axis=0), axis=1).max()
    percent = np.linalg.norm(centers @ (scale * rotation).T + translation - wanted, axis=1) / extent * 100
    between = np.stack([reference[name][0].T @ found[name][0] for name in names])  # the same for all, if they agree
    u, _, vt = np.linalg.svd(between.mean(axis=0))
    turned_deg = rotation_angle_deg(between @ (u @ vt).T)
    return Agreement(
        len(names), float(np.median(turned_deg)), turned_deg.max(), float(np.median(percent)), percent.max()
    )
