"""The order of rows: neighbours in space next to each other, and every array alike."""

import numpy as np
import torch

from tasks.core.training.population import PARAMETERS, Population, morton_order
from tests.core.render.scenes import random_gaussians


def test_the_order_is_that_of_interleaved_bits() -> None:
    axis = torch.arange(16.0)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)

    def interleaved(place: torch.Tensor) -> int:
        x, y, z = (int(value) for value in place)
        return sum((x >> bit & 1) << 3 * bit | (y >> bit & 1) << 3 * bit + 1 | (z >> bit & 1) << 3 * bit + 2
                   for bit in range(4))  # fmt: skip

    # The outliers of the grid's quantiles are none of these: each cell is in the middle of 64 of the 1024 levels
    padded = torch.cat([grid, torch.full((200, 3), -0.5), torch.full((200, 3), 15.5)])
    found = [interleaved(padded[i]) for i in morton_order(padded) if i < len(grid)]
    assert found == sorted(found)


def test_neighbours_are_nearer_than_in_any_order() -> None:
    means = torch.as_tensor(np.random.default_rng(0).normal(size=(5000, 3)), dtype=torch.float32)
    steps = means[morton_order(means)].diff(dim=0).norm(dim=1)
    assert steps.median() < 0.2 * means.diff(dim=0).norm(dim=1).median()


def test_outliers_flat_scenes_and_equal_places() -> None:
    means = torch.zeros(50, 3)
    assert morton_order(means).tolist() == list(range(50))
    means[7] = torch.tensor([1e20, -1e20, 3.0])
    assert sorted(morton_order(means).tolist()) == list(range(50))


def test_every_array_is_sorted_alike() -> None:
    gaussians, _ = random_gaussians(300, 64, 64, 2.0)
    population = Population.of(gaussians, 400, "cpu", np.arange(300))
    for index, array in enumerate(population._arrays().values()):
        if index >= len(PARAMETERS):
            array[:300] = torch.arange(300).reshape(300, *[1] * (array.dim() - 1)).to(array.dtype)
    before = population.snapshot()
    population.sort()
    order = population.shown_by[:300].long()
    assert order.tolist() != list(range(300))
    for name in PARAMETERS:
        assert np.array_equal(getattr(population.snapshot(), name), getattr(before, name)[order.numpy()]), name
    for name, array in list(population._arrays().items())[len(PARAMETERS) :]:
        assert (array[:300].reshape(300, -1) == order[:, None]).all(), name
    assert population.count == 300
