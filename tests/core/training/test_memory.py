"""Running out of memory is reported in one sentence, and the next try is smaller."""

import numpy as np
import pytest
import torch

from tasks.core.errors import OutOfMemoryError
from tasks.core.training.memory import budgets, lowered, memory_errors_explained
from tasks.core.training.options import TrainOptions

TERABYTES = 2**44  # more than any machine of these tests has


def test_each_budget_is_smaller() -> None:
    options = TrainOptions(max_gaussians=60_000, steps=77)
    assert [budget.max_gaussians for budget in budgets(options, 8)] == [60_000, 30_000, 15_000]
    assert {budget.steps for budget in budgets(options, 8)} == {77}
    # Where pixels limit the number, half of what was asked for at most would be no fewer.
    assert [budget.pixels_per_gaussian for budget in budgets(options, 8)] == [7.0, 14.0, 28.0]
    [_, *others] = budgets(options.model_copy(update={"pixels_per_gaussian": 4000.0}), 8)
    for budget in others:
        assert TrainOptions.model_validate(budget.model_dump()) == budget, "a run of its own has to take it"


def test_a_budget_too_small_to_be_useful_is_not_tried() -> None:
    assert [budget.max_gaussians for budget in budgets(TrainOptions(max_gaussians=2500), 8)] == [2500, 1250]


def test_many_photos_leave_memory_before_gaussians_do() -> None:
    """1,000 photos of 960x720 px take 2.8 GB, and 1.5 million Gaussians of degree 3 3.4 GB."""
    tries = [(budget.max_photos_in_memory, budget.max_gaussians) for budget in budgets(TrainOptions(), 1000)]
    assert tries == [(None, 1_500_000), (16, 1_500_000), (16, 750_000), (16, 375_000)]


@pytest.mark.parametrize(("photos", "most"), [(200, None), (16, None), (1000, 16), (1000, 200)])
def test_photos_that_are_a_small_part_stay(photos: int, most: int | None) -> None:
    options = TrainOptions(max_photos_in_memory=most)
    assert {budget.max_photos_in_memory for budget in budgets(options, photos)} == {most}


def test_what_is_lowered_is_told() -> None:
    asked, fewer_photos, fewer_gaussians, _ = budgets(TrainOptions(), 1000)
    assert lowered(asked, fewer_photos) == "trying again with at most 16 photos in memory"
    assert lowered(asked, fewer_gaussians) == (
        "trying again with at most 16 photos in memory and at most 750,000 Gaussians"
    )


@pytest.mark.parametrize(
    "allocate",
    [lambda: np.ones(TERABYTES), lambda: torch.ones(TERABYTES)],
    ids=["numpy", "torch"],
)
def test_the_libraries_errors_become_ours(allocate: object) -> None:
    assert callable(allocate)
    with (
        pytest.raises(OutOfMemoryError, match="up to 1,500,000 Gaussians at 960 px"),
        memory_errors_explained(TrainOptions()),
    ):
        allocate()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_errors_explained(TrainOptions()):
        torch.ones(2, 3).view(7)
