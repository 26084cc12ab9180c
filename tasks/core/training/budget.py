"""A preset's budget, which follows from what computes and from how many photos there are.

A CPU's budgets are in options.py. What a step costs depends on the photo's pixels and on the Gaussians that it shows,
which a number of pixels for each Gaussian keeps alike in small and large captures. So only the number of steps grows
with the photos: by its square root, since what a step changes is seen by several of them.
"""

import math
from typing import Any, Literal

from tasks.core.training.options import TRAIN_PRESETS, TrainOptions

Backend = Literal["cpu", "cuda"]

FEW_PHOTOS = 25  # up to so many, a preset takes its own number of steps

# For 2, 8 and 25 minutes of a T4 with 100 photos, by the published times that estimate/train.py rests on. Not measured.
CUDA_BUDGETS: dict[str, dict[str, Any]] = {
    "draft": {"max_image_size": 1600, "steps": 500, "max_gaussians": 500_000, "pixels_per_gaussian": 4.0},
    "standard": {"max_image_size": 1600, "steps": 2400, "max_gaussians": 1_500_000, "pixels_per_gaussian": 3.0},
    "high": {"max_image_size": 2000, "steps": 5800, "max_gaussians": 4_000_000, "pixels_per_gaussian": 3.0},
}
BY_MACHINE = tuple(CUDA_BUDGETS["draft"])


def steps_for(steps: int, photos: int) -> int:
    """The steps of a preset, which are those for few photos, for so many photos: a multiple of ten."""
    return round(steps * math.sqrt(max(photos / FEW_PHOTOS, 1.0)) / 10) * 10


def budgeted(chosen: TrainOptions, preset: str, backend: Backend, photos: int) -> TrainOptions:
    """The options with what was not chosen decided: `chosen.model_fields_set` says what was.

    Args:
        chosen: complete, and where nothing was chosen of no account.
        preset: its name.
        backend: what trains.
        photos: those with a camera; 0 for what does not depend on it.
    """
    budget = CUDA_BUDGETS[preset] if backend == "cuda" else {n: getattr(TRAIN_PRESETS[preset], n) for n in BY_MACHINE}
    budget = {**budget, "steps": steps_for(budget["steps"], photos)}
    decided = {name: value for name, value in budget.items() if name not in chosen.model_fields_set}
    return chosen.model_copy(update=decided)
