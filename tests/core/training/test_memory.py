"""Running out of memory is reported in one sentence, and the next try is smaller."""

import numpy as np
import pytest
import torch

from tasks.core.errors import OutOfMemoryError
from tasks.core.training.memory import budgets, memory_errors_explained
from tasks.core.training.options import TrainOptions

TERABYTES = 2**44  # more than any machine of these tests has


def test_each_budget_is_smaller() -> None:
    options = TrainOptions(max_gaussians=60_000, steps=77)
    assert [budget.max_gaussians for budget in budgets(options)] == [60_000, 30_000, 15_000]
    assert {budget.steps for budget in budgets(options)} == {77}
    # Where pixels limit the number, half of what was asked for at most would be no fewer.
    assert [budget.pixels_per_gaussian for budget in budgets(options)] == [7.0, 14.0, 28.0]
    [_, *others] = budgets(options.model_copy(update={"pixels_per_gaussian": 4000.0}))
    for budget in others:
        assert TrainOptions.model_validate(budget.model_dump()) == budget, "a run of its own has to take it"


def test_a_budget_too_small_to_be_useful_is_not_tried() -> None:
    assert [budget.max_gaussians for budget in budgets(TrainOptions(max_gaussians=2500))] == [2500, 1250]


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
