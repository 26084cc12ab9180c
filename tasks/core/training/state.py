"""The state of training, which is everything that the next step depends on: its start, and its conversion to arrays.

Training starts with one Gaussian at every sparse point, as large as the gap to its neighbours.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.core.errors import InputError
from tasks.core.gaussians import SH_C0, SH_COEFFICIENTS, Gaussians
from tasks.core.measurements import CurvePoint
from tasks.core.scene import Scene, SparsePoints
from tasks.core.training import schedule
from tasks.core.training.checkpoint import Arrays
from tasks.core.training.coverage import MIN_POINTS
from tasks.core.training.engine import Engine
from tasks.core.training.options import WITHOUT_EFFECT, TrainOptions
from tasks.core.training.population import Population
from tasks.core.training.views import EndlessShuffle, Exposures, View
from tasks.core.transforms import Float64

# Fields that are saved as they are, as JSON. A new one of plain numbers needs its name here and nothing else.
NUMBERS = (
    *("initial_count", "step", "progress", "ended_at", "refinements", "evaluations"),
    *("joined_at", "last_step", "measured"),
)

NEIGHBOURS = 3  # sparse points; their distances determine the size of a Gaussian at the start
INITIAL_OPACITY = 0.3
KEPT_PERCENTILES = (1, 99)  # sizes beyond come from outliers and are clipped to these


class Stopwatch:
    """Measures wall time since its creation, and the share of the time budget; pauses count in neither."""

    def __init__(self, budget_seconds: float | None, spent_seconds: float = 0.0) -> None:
        """`spent_seconds`: time spent before, by the processes that this one resumes."""
        self._budget_seconds = budget_seconds
        self._started = time.monotonic() - spent_seconds
        self._paused_at: float | None = None

    def seconds(self) -> float:
        """Seconds of training so far; they do not grow inside `paused`."""
        return (self._paused_at or time.monotonic()) - self._started

    def budget_share(self) -> float:
        """Share of the budget that is spent; 0 when there is no budget."""
        return self.seconds() / self._budget_seconds if self._budget_seconds else 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time spent inside."""
        self._paused_at = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - self._paused_at
            self._paused_at = None


@dataclass
class TrainingState:
    """The loop's variables. A new one needs a place in `arrays` and `restored`, or its name in NUMBERS."""

    population: Population
    exposures: Exposures  # of the views
    order: EndlessShuffle  # of the views
    torch_generator: torch.Generator  # of density control, on the engine's device
    watch: Stopwatch
    initial_count: int  # Gaussians at the start
    losses: NDArray[np.float64]  # [evaluations + 1, photos, 2] sum and number of losses, by evaluations due before
    step: int = 0  # steps done
    progress: float = 0.0  # 0 at the start, 1 at the end
    ended_at: float = 0.0  # the share of steps or time at which the closing phase began early; 0: it did not
    refinements: int = 0  # done
    evaluations: int = 0  # due so far; they are only done if views are held out
    joined_at: int = 0  # the step after which the held-out photos joined; 0: they have not joined
    last_step: int = 0  # of the part with the held-out photos
    measured: dict[str, Any] = field(default_factory=dict)  # fields of TrainSection, once they are known
    curve: list[CurvePoint] = field(default_factory=list)

    @classmethod
    def at_start(
        cls,
        points: SparsePoints,
        options: TrainOptions,
        device: str,
        num_views: int,
        limit: int,
        shown_by: Callable[[Float64], NDArray[np.integer]] | None = None,
        finest_pixel: Callable[[Float64], Float64] | None = None,
    ) -> "TrainingState":
        """The state before the first step, with room for `limit` Gaussians.

        `shown_by` returns the number of photos that show each place [P, 3], and `finest_pixel` the width of the finest
        pixel there in the world's units. Without them, both are unknown.

        Raises InputError when the points are too few.
        """
        generator = np.random.default_rng(options.random_seed)
        start = initial_gaussians(points, options.sh_degree, limit, generator)
        places = start.means.astype(np.float64)
        counts = shown_by(places) if shown_by else None
        least = None
        if finest_pixel:
            widths = finest_pixel(places)  # infinite where no photo shows a place: no bound
            least = np.where(np.isfinite(widths), np.log(schedule.LEAST_PIXELS * widths), -np.inf)
        population = Population.of(start, limit, device, counts, least)
        population.sort()
        return cls(
            population=population,
            exposures=Exposures.neutral(num_views),
            order=EndlessShuffle(num_views, generator),
            torch_generator=torch.Generator(device).manual_seed(options.random_seed),
            watch=Stopwatch(options.time_budget_seconds),
            initial_count=len(start),
            losses=np.zeros((len(schedule.EVALUATE_AT) + 1, num_views, 2)),
        )

    @property
    def complete(self) -> bool:
        """Whether training is finished."""
        return self.progress >= 1 and self.step >= self.last_step

    @property
    def joined_share(self) -> float:
        """The finished share of the part with the held-out photos."""
        return (self.step - self.joined_at) / (self.last_step - self.joined_at) if self.joined_at else 0.0

    def join(self, photos: int, seed: int) -> None:
        """Let the held-out photos join the training for its last part."""
        self.joined_at = self.step
        share = schedule.JOINED_SHARE / (1 - schedule.JOINED_SHARE)
        self.last_step = self.step + max(round(share * self.step), 1)
        self.order = EndlessShuffle(len(self.exposures.log_gains) + photos, np.random.default_rng([seed, 2]))
        self.exposures = self.exposures.with_more(photos)

    def end_early(self) -> None:
        """Continue with the closing phase now."""
        self.ended_at, self.progress = self.progress, schedule.ANNEAL_FROM

    def arrays(self) -> Arrays:
        """The state as arrays by name. Those of the population may share its memory: save them before the next step."""
        numbers = {
            **{name: getattr(self, name) for name in NUMBERS},
            "seconds": self.watch.seconds(),
            "curve": [point.model_dump() for point in self.curve],
            "order": self.order.numbers(),
            "gauge": self.exposures.gauge,
            "capacity": self.population.capacity,
        }
        return {
            **{f"population.{name}": rows for name, rows in self.population.rows_in_use().items()},
            "order.round": self.order.round,
            "exposures": self.exposures.log_gains,
            "losses": self.losses,
            "torch_generator": self.torch_generator.get_state().numpy(),
            "numbers": np.frombuffer(json.dumps(numbers).encode(), np.uint8),
        }

    @classmethod
    def restored(cls, arrays: Arrays, options: TrainOptions, device: str) -> "TrainingState":
        """The state that `arrays` was called on. Its clock continues from now.

        Raises KeyError, ValueError or RuntimeError for arrays of another training or of another kind of device.
        """
        numbers = json.loads(arrays["numbers"].tobytes())
        prefix = "population."
        rows = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        return cls(
            population=Population.of_rows(rows, numbers["capacity"], device),
            exposures=Exposures(np.array(arrays["exposures"]), numbers["gauge"]),
            order=EndlessShuffle.restored(arrays["order.round"], numbers["order"]),
            torch_generator=_restored_generator(arrays["torch_generator"], device),
            watch=Stopwatch(options.time_budget_seconds, spent_seconds=numbers["seconds"]),
            losses=np.array(arrays["losses"]),
            curve=[CurvePoint.model_validate(point) for point in numbers["curve"]],
            **{name: numbers[name] for name in NUMBERS},
        )


def _restored_generator(state: NDArray[np.generic], device: str) -> torch.Generator:
    generator = torch.Generator(device)
    generator.set_state(torch.from_numpy(np.array(state)))
    return generator


def identity_of(options: TrainOptions, engine: Engine, scene: Scene, views: Sequence[View]) -> str:
    """A digest of everything that determines the course of this training. A saved state with the same digest is usable.

    Of each photo only the smallest copy counts: it has few bytes and changes with the others.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(options.model_dump_json(exclude=set(WITHOUT_EFFECT)).encode())
    points, observed = scene.points, scene.observations
    digest.update(f"{engine.name} {len(points.xyz)} {len(observed.points)} {len(views)}".encode())
    for array in (points.xyz, points.rgb, points.track_lengths, observed.cameras, observed.points):
        digest.update(np.ascontiguousarray(array).tobytes())
    for view in views:
        *numbers, cam_from_world = astuple(view.cameras[0])
        digest.update(repr(numbers).encode() + np.asarray(cam_from_world, np.float64).tobytes())
        digest.update(view.photos[-1].tobytes())
        hidden = view.hidden_at(0)
        digest.update(b"" if hidden is None else hidden.tobytes())
    return digest.hexdigest()


def initial_gaussians(
    points: SparsePoints, sh_degree: int, max_gaussians: int, generator: np.random.Generator
) -> Gaussians:
    """Isotropic Gaussians at the points, in the points' colours.

    Args:
        points: sparse points; points that are not finite are left out.
        sh_degree: degree of the spherical harmonics to make room for.
        max_gaussians: if there are more points, this many are chosen at random.
        generator: for that choice.

    Raises:
        InputError: fewer than MIN_POINTS usable points.
    """
    usable = np.flatnonzero(np.isfinite(points.xyz).all(axis=1))
    if len(usable) < MIN_POINTS:
        raise InputError(
            f"The scene has {len(usable)} usable sparse points; training needs at least {MIN_POINTS}. "
            "Photos that overlap more, or show more texture, give more."
        )
    if len(usable) > max_gaussians:
        usable = np.sort(generator.choice(usable, max_gaussians, replace=False))
    xyz, rgb = points.xyz[usable], points.rgb[usable] / 255.0
    n = len(xyz)
    distances = np.asarray(cKDTree(xyz).query(xyz, k=NEIGHBOURS + 1)[0])  # [N, 1 + NEIGHBOURS], itself first
    sizes = np.sqrt((distances[:, 1:] ** 2).mean(axis=1))  # [N]
    positive = sizes[sizes > 0]
    if len(positive) == 0:
        raise InputError(f"All {n} sparse points lie in the same place; the photos show no depth.")
    sizes = np.clip(sizes, *np.percentile(positive, KEPT_PERCENTILES))
    return Gaussians(
        means=xyz.astype(np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        log_scales=np.tile(np.log(sizes).astype(np.float32)[:, None], (1, 3)),
        raw_opacities=np.full(n, np.log(INITIAL_OPACITY / (1 - INITIAL_OPACITY)), np.float32),
        sh0=((rgb - 0.5) / SH_C0).astype(np.float32)[:, None, :],
        shN=np.zeros((n, SH_COEFFICIENTS[sh_degree] - 1, 3), np.float32),
    )
