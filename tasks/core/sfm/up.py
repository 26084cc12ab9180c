"""Up in a model, from all that photos know without GPS, each weighed by its error.

Each cue is linear in the unit vector u to the sky, in the model's axes: its residuals are `rows @ u - targets`, in
standard deviations. Their squares are added up and minimised over unit vectors.

    gimbal      u is what the gimbal's angles say, seen from each camera
    horizon     cameras are not rolled, so their right axes are level: u is square to them
    level       photos are taken rather level than up or down; this alone says little
    ground      photos that all look along the normal of the points' plane look down on it

Photos of one direction are either of a ground below or of a wall ahead, and a plane of cameras does not say which. So
there are two hypotheses. Photos of a ground are turned to all sides, or the camera moves along their up, as drones fly
ahead; photos of a wall are upright, and the camera moves along it. GPS, where there is any, decides (`gps_fit`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from tasks.core.photoset import Direction
from tasks.core.transforms import Float64

GIMBAL_DEG = 1.0  # a gimbal's own error, the same in all photos
GIMBAL_AGREES_DEG = 5.0  # median angle to the common direction, beyond which the angles mean something else
LEAST_GIMBAL_PHOTOS, LEAST_PLANE_POINTS = 3, 20
ROLL_DEG = 0.5  # common to all photos: a gimbal's, or a person's habit
INDEPENDENT_PHOTOS = 25  # neighbours are rolled alike, so more of them do not reduce the error further
LEVEL_DEG = 30.0
GROUND_DEG = 4.0  # slope of the ground below a flight
VIEW_DEG = 8.0  # of photos straight down to the vertical, on average
ALONG = 0.9  # cosine between all views, and between them and the plane's normal
FLAT = 0.35  # third over second deviation of the points
TURNED = 0.5  # length of the mean of the images' up, below which photos are turned in their plane as above ground
LINE_RATIO, LINE_ALONG_UP = 1.4, 0.8  # first over second deviation of the cameras; cosine to the images' up
SAME_UP = 0.97  # cosine: 14°
DECIDED = 9.0  # difference of cost beyond which evidence, and not what is usual, decides
UNLIKELY = 9.0  # cost of the hypothesis that nothing speaks for: three standard deviations
ITERATIONS = 60
SAMPLED_POINTS = 20_000


@dataclass(frozen=True)
class Cue:
    """Evidence of the direction u to the sky: residuals `rows @ u - targets` in standard deviations."""

    says: str  # in the report
    rows: Float64  # [K, 3]
    targets: Float64  # [K]

    @classmethod
    def direction(cls, says: str, up: Float64, error_deg: float) -> "Cue":
        """The sky is at `up` [3], with this standard deviation."""
        weight = 1 / np.radians(error_deg)
        return cls(says, weight * np.eye(3), weight * up)


@dataclass(frozen=True)
class Uprightness:
    """One hypothesis: all its cues, the direction that they agree on, and what it costs."""

    cues: tuple[Cue, ...]
    up: Float64  # [3] unit
    unlikely: float = 0.0  # cost beside that of the residuals
    takes_for: str = ""  # what it takes the photos for, where their pixels do not say it

    @property
    def cost(self) -> float:
        """Sum of the squared residuals, and of what makes the hypothesis unlikely."""
        return self.unlikely + sum(float(np.square(cue.rows @ self.up - cue.targets).sum()) for cue in self.cues)

    @property
    def basis(self) -> tuple[str, ...]:
        """What the direction rests on, the strongest first; what contributes less than a tenth is left out."""
        return strongest(self.cues, self.up)


def strongest(cues: Sequence[Cue], up: Float64) -> tuple[str, ...]:
    """Words of the cues by their information on the weakest tilt of `up` [3], without those of less than a tenth."""
    level = np.linalg.svd(up[None])[2][1:]  # [2, 3] axes square to up
    information = [level @ cue.rows.T @ cue.rows @ level.T for cue in cues]  # [2, 2] each
    _, axes = np.linalg.eigh(np.sum(information, axis=0))
    weakest = axes[:, 0]
    shares = np.array([weakest @ part @ weakest for part in information])
    order = np.argsort(-shares, kind="stable")
    return tuple(cues[i].says for i in order if shares[i] >= 0.1 * shares.sum())


def hypotheses(
    centers: Float64,
    forwards: Float64,
    ups: Float64,
    gimbal: Mapping[int, Direction],
    points: Float64,
    *,
    drone: bool = False,
) -> tuple[list[Uprightness], list[str]]:
    """Return the ways in which a model can be upright, the likeliest first, and sentences on what is not believed.

    Args:
        centers: [N, 3] of the cameras, in the model's axes.
        forwards: [N, 3] unit vectors along the cameras' views.
        ups: [N, 3] unit vectors along the images' up.
        gimbal: direction to the sky in the camera's axes (x right, y down, z forward), by row of `forwards`.
        points: [P, 3] of the model, for the ground's plane; may be empty.
        drone: the camera is a drone's, so photos of a plane are rather of the ground.
    """
    rights = np.cross(forwards, ups)
    doubts: list[str] = []
    cues = [_horizon(rights)]
    said = _gimbal(np.stack([rights, -ups, forwards], axis=1), gimbal)
    if isinstance(said, Cue):
        return [_solved([said], said.targets)], doubts  # the horizon is level by the same gimbal
    if said:
        doubts.append(said)
    mean = _common(ups)
    view = forwards.mean(axis=0)
    along = float(np.linalg.norm(view))
    view = view / max(along, 1e-12)
    level = Cue("photos that are held level", forwards.mean(axis=0)[None] / np.radians(LEVEL_DEG), np.zeros(1))
    if along < ALONG:
        return [_solved([*cues, level], mean)], doubts
    ground = _ground(view, points)
    down = ground or Cue.direction("the view of the photos, which all look straight down", -view, VIEW_DEG)
    turned = np.linalg.norm(ups.mean(axis=0)) < TURNED
    flown = drone or turned or (ground is not None and _moves_along(centers, mean))
    found = [
        _solved([*cues, level], mean, UNLIKELY if flown else 0.0, "a wall ahead"),
        _solved([*cues, down], down.targets, 0.0 if flown else UNLIKELY, "a ground below"),
    ]
    return sorted(found, key=lambda one: one.cost), doubts


def undecided(found: Sequence[tuple[float, str, Float64]]) -> str:
    """Return a sentence on what the photos are taken for, unless evidence decides it; empty if it does.

    found: the cost of each hypothesis, what it takes the photos for, and the direction [3] to the sky that it finds.
    """
    best, *others = sorted(found, key=lambda one: one[0])
    close = [other for other in others if other[0] - best[0] <= UNLIKELY + DECIDED and best[2] @ other[2] < SAME_UP]
    if not close or not best[1]:
        return ""
    return (
        f"Gimbal angles and GPS do not say whether the photos show a ground below or a wall ahead: taken for {best[1]}."
    )


def middle_of(directions: Float64) -> Float64:
    """The unit vector [3] at the geometric median of unit vectors [N, 3], which a few wrong ones do not move."""
    middle = directions.mean(axis=0)
    for _ in range(10):
        weights = 1 / np.maximum(np.linalg.norm(directions - middle, axis=1), 0.01)
        middle = weights @ directions / weights.sum()
    return np.asarray(middle / max(float(np.linalg.norm(middle)), 1e-12))


def angles_deg(directions: Float64, to: Float64) -> Float64:
    """Angles [N] between unit vectors [N, 3] and one of them [3]."""
    return np.asarray(np.degrees(np.arctan2(np.linalg.norm(np.cross(directions, to), axis=1), directions @ to)))


def points_of(model: pycolmap.Reconstruction) -> Float64:
    """Positions [P, 3] of a model's points, every so many of them."""
    numbers = sorted(model.points3D)
    chosen = numbers[:: max(len(numbers) // SAMPLED_POINTS, 1)]
    return np.array([model.points3D[number].xyz for number in chosen], dtype=np.float64).reshape(-1, 3)


def _gimbal(rotations: Float64, gimbal: Mapping[int, Direction]) -> Cue | str:
    """The gimbals' common direction, or why it is not believed; an empty text where there are too few angles."""
    if len(gimbal) < LEAST_GIMBAL_PHOTOS:
        return ""
    rows = sorted(gimbal)
    skies = np.einsum("nij,ni->nj", rotations[rows], np.array([gimbal[row] for row in rows]))  # [G, 3] in the model
    sky = middle_of(skies)
    apart = angles_deg(skies, sky)
    scatter_deg = float(np.median(apart))
    if scatter_deg > GIMBAL_AGREES_DEG:
        return (
            f"The gimbal angles of {len(rows)} photos are not believed: they differ from the photos' own turns by "
            f"{scatter_deg:.0f}° (median)."
        )
    error_deg = float(np.hypot(GIMBAL_DEG, scatter_deg / np.sqrt(len(rows))))
    return Cue.direction(f"the gimbal angles of {len(rows)} photos (within {scatter_deg:.1f}°)", sky, error_deg)


def _horizon(rights: Float64) -> Cue:
    """Right axes are level. Photos on their side, whose right axis points up, lose their weight."""
    weights = np.ones(len(rights))
    values, axes = np.linalg.eigh(rights.T @ rights)
    for _ in range(ITERATIONS):
        rolls = rights @ axes[:, 0]
        weights = 1 / (1 + np.square(rolls / np.radians(5.0)))
        values, axes = np.linalg.eigh((rights * weights[:, None]).T @ rights / weights.sum())
    rolls_deg = np.degrees(np.abs(np.arcsin(np.clip(rights @ axes[:, 0], -1, 1))))
    scatter_deg = 1.4826 * float(np.median(rolls_deg))
    error_deg = float(np.hypot(ROLL_DEG, scatter_deg / np.sqrt(min(len(rights), INDEPENDENT_PHOTOS))))
    # What the axes vary less than they are rolled is noise, and says nothing of the direction along it.
    known = np.sqrt(np.maximum(values - np.square(np.radians(scatter_deg)), 0.0) * (np.arange(3) > 0))
    rows = known[:, None] * axes.T / np.radians(error_deg)
    return Cue(f"the photos' level horizon (rolled by {scatter_deg:.1f}°)", rows, np.zeros(3))


def _ground(view: Float64, points: Float64) -> Cue | None:
    """The normal of the points' plane where the mean view [3] is along it."""
    if len(points) < LEAST_PLANE_POINTS:
        return None
    centered = points - np.median(points, axis=0)
    lengths = np.linalg.norm(centered, axis=1)
    _, deviations, axes = np.linalg.svd(centered[lengths <= 3 * np.median(lengths)], full_matrices=False)
    normal = axes[2]
    if deviations[2] > FLAT * deviations[1] or abs(normal @ view) < ALONG:
        return None
    says = "the ground's plane, on which all photos look down"
    return Cue.direction(says, -np.sign(normal @ view) * normal, GROUND_DEG)


def _moves_along(centers: Float64, up: Float64) -> bool:
    """Whether the cameras [N, 3] are rather in a line, and that along their images' up, as a drone flies ahead."""
    _, deviations, axes = np.linalg.svd(centers - centers.mean(axis=0), full_matrices=False)
    return bool(deviations[0] >= LINE_RATIO * deviations[1] and abs(axes[0] @ up) >= LINE_ALONG_UP)


def _common(ups: Float64) -> Float64:
    """The images' common up; of the first image where they cancel out."""
    middle = middle_of(ups)
    return middle if np.linalg.norm(ups.mean(axis=0)) > 1e-9 else ups[0]


def _solved(cues: Sequence[Cue], first: Float64, unlikely: float = 0.0, takes_for: str = "") -> Uprightness:
    """Minimise over unit vectors, by steps that each solve the quadratic with a pull to the last one."""
    rows = np.concatenate([cue.rows for cue in cues])
    targets = np.concatenate([cue.targets for cue in cues])
    square, linear = rows.T @ rows, rows.T @ targets
    pull = 1e-3 * float(np.trace(square))
    up = first / np.linalg.norm(first)
    for _ in range(ITERATIONS):
        up = np.linalg.solve(square + pull * np.eye(3), linear + pull * up)
        up /= np.linalg.norm(up)
    return Uprightness(tuple(cues), up, unlikely, takes_for)
