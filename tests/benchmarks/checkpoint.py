"""Cost of saving a checkpoint for the training loop, in ms: `python -m tests.benchmarks.checkpoint [FOLDER]`.

Random numbers in place of trained ones, degree 3, as many as the presets have. "saved" is what training waits for:
written, fsynced and renamed, on the disk that holds FOLDER; an upload follows in a thread. "read" is what going on from
it takes. Medians of ROUNDS.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tasks.core.gaussians import Gaussians
from tasks.core.training.checkpoint import read_checkpoint, write_checkpoint
from tasks.core.training.options import TRAIN_PRESETS
from tasks.core.training.population import Population
from tasks.core.training.schedule import EVALUATE_AT
from tasks.core.training.state import Stopwatch, TrainingState
from tasks.core.training.views import EndlessShuffle, Exposures

ROUNDS = 7
VIEWS = 50


def state_of(n: int) -> TrainingState:
    """A state with `n` Gaussians in use."""
    rng = np.random.default_rng(0)
    shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "raw_opacities": (), "sh0": (1, 3), "shN": (15, 3)}
    gaussians = Gaussians(**{name: rng.normal(size=(n, *shape)).astype(np.float32) for name, shape in shapes.items()})
    population = Population.of(gaussians, n, "cpu")
    for moments in (population.first_moments, population.second_moments):
        for array in moments.values():
            array.normal_()
    generator = torch.Generator().manual_seed(1)
    losses = np.zeros((len(EVALUATE_AT) + 1, VIEWS, 2))
    exposures, order = Exposures.neutral(VIEWS), EndlessShuffle(VIEWS, rng)
    return TrainingState(population, exposures, order, generator, Stopwatch(None), n, losses)


def milliseconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print a line for each preset."""
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    for preset, options in TRAIN_PRESETS.items():
        state = state_of(options.max_gaussians)
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            path = Path(folder) / "1.npz"
            saved = milliseconds(lambda: write_checkpoint(path, "me", state.arrays()))  # noqa: B023 - called here
            read = milliseconds(lambda: read_checkpoint(path, "me"))  # noqa: B023
            size = path.stat().st_size / 1e6
        print(
            f"{preset:9} {options.max_gaussians:7,} Gaussians {size:6.1f} MB: "
            f"saved {saved:5.0f} ms, read {read:5.0f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
