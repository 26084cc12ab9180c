"""Memory plans for cards of several sizes, by properties and for a table of cards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.training.memory import GpuBudget, gpu_budget, gpu_bytes_each

FLIGHT = [1600 * 1200] * 200  # 1.5 GB with their smaller copies
LONG_FLIGHT = [1600 * 1200] * 2000  # 15 GB
T4, H100, SMALL_CARD = 15.6e9, 79e9, 5.5e9  # free on cards of 16, 80 and 6 GB, the driver's share taken off
HOST = 12e9  # free on a machine of 16 GB


@pytest.mark.parametrize(
    ("free", "photos", "wanted", "on_gpu", "packed", "whole"),
    [
        (T4, FLIGHT, 1_500_000, True, False, True),
        (T4, LONG_FLIGHT, 1_500_000, False, False, True),
        (T4, FLIGHT, 5_500_000, False, False, True),
        (T4, FLIGHT, 8_000_000, False, True, True),
        (T4, FLIGHT, 16_000_000, False, True, False),
        (H100, LONG_FLIGHT, 4_000_000, True, False, True),
        (H100, LONG_FLIGHT, 16_000_000, True, False, True),
        (SMALL_CARD, FLIGHT, 200_000, True, False, True),
        (SMALL_CARD, FLIGHT, 1_500_000, False, False, True),
        (SMALL_CARD, FLIGHT, 4_000_000, False, True, False),
    ],
)
def test_cards(free: float, photos: list[int], wanted: int, on_gpu: bool, packed: bool, whole: bool) -> None:
    budget = gpu_budget(free, HOST, photos, wanted, 3)
    assert (budget.pixel_bytes > 0, budget.packed, budget.max_gaussians == wanted) == (on_gpu, packed, whole)
    assert bool(budget.degradations) != whole
    assert f"{budget.max_gaussians:,} Gaussians" in budget.decisions[0]
    assert (budget.pinned_bytes > 0) != on_gpu
    assert budget.pinned_bytes <= HOST / 4


def planned_bytes(budget: GpuBudget, sh_degree: int) -> float:
    each = gpu_bytes_each(sh_degree, budget.packed)
    return budget.max_gaussians * each + budget.pixel_bytes + budget.moment_bytes


@given(
    free=st.floats(3e9, 150e9),
    photos=st.lists(st.integers(10_000, 4_000_000), min_size=1, max_size=50),
    repeats=st.integers(1, 40),
    wanted=st.integers(1000, 16_000_000),
    degree=st.integers(0, 3),
)
def test_what_is_planned_fits_and_more_memory_never_means_less(
    free: float, photos: list[int], repeats: int, wanted: int, degree: int
) -> None:
    budget, richer = (gpu_budget(amount, HOST, photos * repeats, wanted, degree) for amount in (free, 2 * free))
    assert planned_bytes(budget, degree) <= 0.9 * free
    assert budget.max_gaussians <= richer.max_gaussians <= wanted
    assert bool(budget.pixel_bytes) <= bool(richer.pixel_bytes)


def test_the_host_keeps_no_photos_that_are_on_the_disk() -> None:
    """Where they are does not change what the GPU has room for."""
    for free, where in ((H100, "on the GPU"), (T4, "on the disk")):
        kept, read = (gpu_budget(free, HOST, LONG_FLIGHT, 1_500_000, 3, on_disk) for on_disk in (False, True))
        assert f"2000 photos (15.30 GB) {where}" in read.decisions[0]
        assert read.pinned_bytes == 0
        assert (read.pixel_bytes, read.max_gaussians) == (kept.pixel_bytes, kept.max_gaussians)


def test_a_degree_less_saves_its_coefficients() -> None:
    saved = gpu_bytes_each(3, packed=False) - gpu_bytes_each(2, packed=False)
    assert saved == 21 * 16 + 21 * 16  # in parameters, gradient and moments, and as much in what Adam gathers


def test_a_card_with_nothing_free_is_still_given_a_plan() -> None:
    assert gpu_budget(0, 0, FLIGHT, 50_000, 3).max_gaussians == 1000
