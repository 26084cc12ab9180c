"""Evidence, from a model's own numbers, that photos have depth and that the model is more than a coincidence.

A low reprojection error does not tell: photos from one place, or a title in all of them, fit a wrong model well.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.transforms import Float64

JUDGED_POINTS = 1000  # of a model, at most
JUDGED_VIEWS = 12  # of a point, at most
LEAST_ANGLE_DEG = 3.0  # median over points; a camera that is only turned reaches 2, a walk or a flight 10 and more
LEAST_POINTS = 20  # that a photo shows, the median over photos
MOST_ERROR_PX = 1.6  # of the photos as features are looked for in them; all errors above 4 are removed anyway
DOUBTFUL_ERROR_PX = 0.9  # the same, where the photos fell into several models
FLAT_SHARE = 0.01  # of a scene's lesser width, that its points are off one plane: a beach from a drone has 0.02
INNER_PERCENT = 97  # of the points, without those far off
STRAIGHT_ON = 0.95  # cosine: a view that is slanted by 18 degrees tells the focal length
FOCAL_RATIOS = (0.1, 10.0)  # focal length over the long side, as COLMAP's incremental mapper bounds it
MOST_DISTORTION = 1.0  # absolute value of a distortion parameter, the same

LEAST_MATCHES = 15  # points that two photos must share to count as a pair: pycolmap's min_num_inliers
DEPTHLESS_SHARE = 0.95  # of all pairs that agree: the rest is chance
FEWEST_PAIRS = 3
TRIED_FOCAL_RATIOS = np.geomspace(0.35, 6.0, 48)  # 6 % apart
JUDGED_PAIRS = 300  # at most
LEAST_TILT_DEG = 1.0  # of the optical axis between two photos, below which they say nothing about turns
# How much a homography stretches over how much it turns: some hundredths for turns, 2 for a move along a wall.
MOST_STRETCH = 0.15
STILL_SHARE = 0.005  # of the long side, by which a photo's corners move at most: it is the same photo
FOOLED_STILL_SHARE = 0.5  # of a pair's agreeing matches that do not move, while as many others do
FOOLED_PAIRS_SHARE = 0.2  # of all pairs that agree


@dataclass(frozen=True)
class Evidence:
    """Numbers of a model that tell whether to believe it; NaN where it has no points."""

    angle_deg: float  # median over points of the greatest angle between two rays to it
    points: float  # that a photo shows, the median
    error_px: float  # mean reprojection error, in px of the photos as features are looked for in them

    def doubt(self, models: int) -> str:
        """Return what speaks against the model, a phrase; empty for nothing. `models`: that the photos fell into."""
        if self.angle_deg < LEAST_ANGLE_DEG:
            return (
                f"the camera hardly moved sideways between photos: lines of sight meet at {self.angle_deg:.1f} degrees "
                f"(median; {LEAST_ANGLE_DEG:.0f} and more are needed), so there is next to no depth"
            )
        if self.points < LEAST_POINTS:
            return f"a photo shows only {self.points:.0f} of the scene's points (median; need {LEAST_POINTS})"
        limit = MOST_ERROR_PX if models == 1 else DOUBTFUL_ERROR_PX
        if self.error_px > limit:
            parts = "" if models == 1 else f", and the photos fell into {models} parts"
            return f"points are {self.error_px:.1f} px off in the photos (mean; at most {limit:g} is usual){parts}"
        return ""


def evidence_of(model: pycolmap.Reconstruction, scale: float) -> Evidence:
    """Measure a model. `scale`: px of the photos that features are looked for in, for one of the photos'."""
    numbers = sorted(model.point3D_ids())
    if not numbers:
        return Evidence(np.nan, np.nan, np.nan)
    centers = {int(i): np.asarray(model.image(i).projection_center()) for i in model.reg_image_ids()}
    angles = [
        _widest_angle(np.asarray(point.xyz), [centers[e.image_id] for e in point.track.elements[:JUDGED_VIEWS]])
        for point in (model.point3D(i) for i in numbers[:: -(-len(numbers) // JUDGED_POINTS)])
    ]
    shown = [model.image(i).num_points3D for i in model.reg_image_ids()]
    error_px = model.compute_mean_reprojection_error() * scale
    return Evidence(float(np.median(angles)), float(np.median(shown)), error_px)


def _widest_angle(point: Float64, centers: Sequence[Float64]) -> float:
    rays = point - np.array(centers)
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    return float(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))


def is_flat(model: pycolmap.Reconstruction) -> bool:
    """Whether all points are in one plane that all photos see straight on.

    From such photos alone a focal length cannot be told from a height.
    """
    if model.num_points3D() < LEAST_POINTS:
        return False
    xyz = np.array([model.point3D(i).xyz for i in sorted(model.point3D_ids())])
    middle = np.median(xyz, axis=0)
    distances = np.linalg.norm(xyz - middle, axis=1)
    near = xyz[distances <= np.percentile(distances, INNER_PERCENT)]
    _, _, axes = np.linalg.svd(near - near.mean(axis=0), full_matrices=False)
    along = np.abs((near - np.median(near, axis=0)) @ axes.T)
    across, thick = np.percentile(along[:, 1], INNER_PERCENT), np.percentile(along[:, 2], INNER_PERCENT)
    views = [model.image(i).cam_from_world().rotation.matrix()[2] for i in model.reg_image_ids()]
    straight_on = np.abs(np.array(views) @ axes[2]).min() >= STRAIGHT_ON
    return bool(straight_on and thick <= FLAT_SHARE * across)


def without_impossible_cameras(model: pycolmap.Reconstruction) -> int:
    """Take the photos out of a model whose camera no lens makes; return how many."""
    impossible = {
        number
        for number, camera in model.cameras.items()
        if camera.has_bogus_params(*FOCAL_RATIOS, MOST_DISTORTION) or not np.isfinite(camera.params).all()
    }
    frames = {model.image(i).frame_id for i in model.reg_image_ids() if model.image(i).camera_id in impossible}
    for frame in sorted(frames):
        model.deregister_frame(frame)
    return len(frames)


@dataclass(frozen=True)
class Pairs:
    """Pairs of photos that agree, as the database has them."""

    images: tuple[tuple[int, int], ...]  # numbers in the database
    planar: np.ndarray  # [P] bool: one homography explains what they share
    homographies: Float64  # [P, 3, 3]; zeros where there is none


def read_pairs(database: Path) -> Pairs:
    """Read the pairs that agree from a database that no process has open."""
    planar = int(pycolmap.TwoViewGeometryConfiguration.PLANAR_OR_PANORAMIC)
    kinds = {planar, int(pycolmap.TwoViewGeometryConfiguration.PANORAMIC)}
    kinds.add(int(pycolmap.TwoViewGeometryConfiguration.PLANAR))
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "select pair_id, config, H from two_view_geometries where rows >= ? order by pair_id", (LEAST_MATCHES,)
        ).fetchall()
    ids = [pycolmap.pair_id_to_image_pair(pair) for pair, _, _ in rows]
    matrices = [np.frombuffer(h).reshape(3, 3) if h else np.zeros((3, 3)) for _, _, h in rows]
    return Pairs(
        tuple((int(first), int(second)) for first, second in ids),
        np.array([config in kinds for _, config, _ in rows], bool),
        np.array(matrices, np.float64).reshape(-1, 3, 3),
    )


def no_depth(pairs: Pairs, sizes: dict[int, tuple[int, int]]) -> str:
    """Return how the camera failed to move, for a sentence: "was only turned" or "did not move"; empty if it moved.

    `sizes`: width and height of each photo, by number. A camera that is turned sees H = K R K^-1, whatever it looks at.
    The focal length is not known, so one is looked for that makes turns of all pairs; a move along a wall has none.
    """
    count = len(pairs.images)
    if count < FEWEST_PAIRS or pairs.planar.sum() < DEPTHLESS_SHARE * count:
        return ""
    chosen = np.flatnonzero(pairs.planar & (np.abs(np.linalg.det(pairs.homographies)) > 1e-12))
    if len(chosen) < DEPTHLESS_SHARE * count:
        return ""
    chosen = chosen[:: -(-len(chosen) // JUDGED_PAIRS)]
    first, second = (np.array([sizes[pairs.images[i][side]] for i in chosen], np.float64) for side in (0, 1))
    matrices = pairs.homographies[chosen]
    still = _corner_moves(matrices, first, second) <= STILL_SHARE
    if still.mean() >= DEPTHLESS_SHARE:
        return "did not move"
    turned = max(float((still | _turns(matrices, first, second, ratio)).mean()) for ratio in TRIED_FOCAL_RATIOS)
    return "was only turned" if turned >= DEPTHLESS_SHARE else ""


def _corner_moves(matrices: Float64, first: Float64, second: Float64) -> Float64:
    """Return by how much corners move at most [P], in long sides of the second photo."""
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * first[:, None]  # [P, 4, 2]
    there = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2) @ matrices.transpose(0, 2, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = there[..., :2] / there[..., 2:] - corners * (second / first)[:, None]
    long_sides = second.max(axis=1)
    return np.asarray(np.nan_to_num(np.linalg.norm(moves, axis=2).max(axis=1) / long_sides, nan=np.inf))


def _turns(matrices: Float64, first: Float64, second: Float64, ratio: float) -> np.ndarray:
    """Return which homographies [P] are turns of a camera with this focal length, in long sides of the photo."""
    directions = np.linalg.inv(_intrinsics(second, ratio)) @ matrices @ _intrinsics(first, ratio)
    directions /= np.cbrt(np.linalg.det(directions))[:, None, None]
    u, sizes, vt = np.linalg.svd(directions)
    tilts = np.arccos(np.clip((u @ vt)[:, 2, 2], -1, 1))
    stretches = np.log(sizes[:, 0] / sizes[:, 2])
    return np.asarray((tilts > np.radians(LEAST_TILT_DEG)) & (stretches <= MOST_STRETCH * tilts))


def _intrinsics(sizes: Float64, ratio: float) -> Float64:
    matrices = np.zeros((len(sizes), 3, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = ratio * sizes.max(axis=1)
    matrices[:, :2, 2] = sizes / 2
    matrices[:, 2, 2] = 1
    return matrices


def is_fooled(database: Path, still_px: float) -> bool:
    """Whether many pairs agree mostly by points that do not move, although enough of their other matches do.

    Pairs of photos that are alike do not count: nothing moves between them. `still_px`: what counts as no move.
    """
    fooled = total = 0
    with pycolmap.Database.open(database) as known:
        places: dict[int, Float64] = {}

        def moves(pair: tuple[int, int], matches: np.ndarray) -> Float64:
            for number in pair:
                if number not in places:
                    places[number] = np.array(known.read_keypoints(number), np.float64)[:, :2]
            between = places[pair[0]][matches[:, 0]] - places[pair[1]][matches[:, 1]]
            return np.asarray(np.linalg.norm(between, axis=1))

        for number, geometry in zip(*known.read_two_view_geometries(), strict=True):
            matches = np.asarray(geometry.inlier_matches)
            if len(matches) < LEAST_MATCHES:
                continue
            pair = pycolmap.pair_id_to_image_pair(number)
            total += 1
            if (moves(pair, matches) <= still_px).mean() >= FOOLED_STILL_SHARE:
                others = np.asarray(known.read_matches(*pair))
                fooled += int((moves(pair, others) > still_px).sum() >= LEAST_MATCHES)
    return total > 0 and fooled >= FOOLED_PAIRS_SHARE * total
