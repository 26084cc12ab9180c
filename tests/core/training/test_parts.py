"""Schedule, initialisation and density control, each by its promises."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.errors import TrainingDivergedError
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import SparsePoints
from tasks.core.training import schedule
from tasks.core.training.evaluate import finished_gaussians
from tasks.core.training.population import PARAMETERS, Population
from tasks.core.training.refine import bound_shapes, refine, split
from tasks.core.training.state import Stopwatch, initial_gaussians
from tests.core.render.scenes import random_gaussians


def points(xyz: np.ndarray) -> SparsePoints:
    n = len(xyz)
    return SparsePoints(xyz, np.full((n, 3), 128, np.uint8), np.ones(n), np.full(n, 3, np.int32))


def test_schedule_is_monotone_and_ends_where_it_says() -> None:
    moments = np.linspace(0, 1, 201)
    counts = [schedule.count_at(p, 1000, 50_000) for p in moments]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1000, 50_000)
    sizes = [schedule.halvings_at(p) for p in moments]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (schedule.MAX_HALVINGS, 0)
    steps = [schedule.share_of_steps_at(p) for p in moments]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 1)
    assert schedule.share_of_steps_at(0.3) > 0.4  # photos are small until then, and steps are quick
    done = [schedule.refinement_at(p) for p in moments]
    assert (done[0], done[-1]) == (0, schedule.REFINEMENTS)
    assert {schedule.settings_at(p, 2, 1.0, 0.2).sh_degree for p in moments} == {2}
    means = [schedule.settings_at(p, 3, 2.0, 0.2).rates["means"] for p in moments]
    assert means == sorted(means, reverse=True)


def test_long_trainings_take_smaller_steps() -> None:
    shares = [schedule.rate_share_for(steps) for steps in (10, 1200, 2500, 6000, 1_000_000)]
    assert shares == pytest.approx([1, 1, 0.775, 0.5, 0.5], abs=1e-3)
    whole, half = (schedule.settings_at(0.5, 3, 2.0, 0.2, share).rates for share in (1.0, 0.5))
    assert {name: rate / 2 for name, rate in whole.items()} == pytest.approx(half)


def test_few_pixels_limit_the_gaussians() -> None:
    assert schedule.most_gaussians(7e6, 5, 300_000, 7.0) == 200_000  # 1.4 million pixels of surface
    assert schedule.most_gaussians(7e6, 5, 60_000, 7.0) == 60_000
    assert schedule.most_gaussians(7e6, 0, 2_000_000, 7.0) == 1_000_000  # every pixel shows a place of its own
    assert schedule.most_gaussians(1000, 5, 60_000, 7.0) == schedule.FEWEST_GAUSSIANS
    assert schedule.most_gaussians(1000, 5, 900, 7.0) == 900
    assert schedule.most_gaussians(1000, 5, 60_000, 0.0) == 60_000


STEADY = [0.2, 0.15, 0.12, 0.1, 0.1, 0.1, 0.1, 0.1]  # mean losses; the last four are of a tenth of training


@pytest.mark.parametrize(
    ("progress", "mean_losses", "flat"),
    [
        (0.7, [*STEADY, 0.1, 0.1, 0.1, 0.1], True),
        (0.7, [*STEADY, 0.102, 0.098, 0.101, 0.099], True),  # swings
        (0.7, [*STEADY, 0.1, 0.099, 0.099, 0.099], False),  # fell by 0.75 %
        (0.7, [*STEADY, 0.1, 0.1, 0.0995, 0.0995], True),  # by 0.25 %
        (0.7, [*STEADY, 0.11, 0.12, 0.13, 0.14], True),  # rises
        (0.7, STEADY, False),  # fell until the middle of what is looked at
        (0.45, [*STEADY, 0.1, 0.1, 0.1, 0.1], False),  # photos have just become larger
        (0.9, [*STEADY, 0.1, 0.1, 0.1, 0.1], False),  # it is ending anyway
        (0.7, STEADY[1:], False),  # too few to tell
    ],
)
def test_training_is_flat_when_a_tenth_of_it_brought_nothing(
    progress: float, mean_losses: list[float], *, flat: bool
) -> None:
    # Photos with losses of their own, each there once or twice in a tenth; the hard ones more often in the second
    share = np.array([0.5, 0.9, 1.0, 1.6])
    means = np.array(mean_losses)[:, None] * share
    counts = np.ones_like(means)
    counts[-4:, 3] = 2
    losses = np.stack([means * counts, counts], axis=-1)
    assert schedule.is_flat(progress, losses) is flat
    losses[-4:, 1] = 0  # one is missing
    assert not schedule.is_flat(progress, losses)


def test_an_early_end_has_the_closing_phase_of_a_shorter_training() -> None:
    assert schedule.progress_at(0.3, ended_at=0) == 0.3
    assert schedule.progress_at(0.6, ended_at=0.6) == pytest.approx(schedule.ANNEAL_FROM)
    # 60 % are 85 % of a training that is 0.6 / 0.85 long
    assert schedule.progress_at(0.6 / 0.85, ended_at=0.6) == pytest.approx(1)


def test_time_stands_still_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = Stopwatch(budget_seconds=20, spent_seconds=3)
    now[0] += 2
    with watch.paused():
        now[0] += 7
        assert watch.seconds() == 5
    now[0] += 1
    assert watch.seconds() == 6
    assert watch.budget_share() == 0.3


def test_initial_sizes_are_the_gaps_and_outliers_do_not_blow_up() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(8.0)] * 3), -1).reshape(-1, 3)
    with_outlier = np.concatenate([grid, [[1e6, 0, 0]], [[np.nan, 0, 0]]])
    gaussians = initial_gaussians(points(with_outlier), 3, 10_000, np.random.default_rng(0))
    assert len(gaussians) == 513
    np.testing.assert_allclose(np.exp(gaussians.log_scales), 1, atol=1e-3)  # the outlier's too
    assert not gaussians.shN.any()
    np.testing.assert_allclose(gaussians.sh0 * 0.28209479 + 0.5, 128 / 255, atol=1e-6)


def test_more_points_than_allowed_gaussians() -> None:
    xyz = np.random.default_rng(0).normal(size=(500, 3))
    gaussians = initial_gaussians(points(xyz), 0, 100, np.random.default_rng(1))
    assert len(gaussians) == 100
    assert len(np.unique(gaussians.means, axis=0)) == 100


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    spare=st.integers(0, 60),
    wanted=st.integers(0, 500),
    seed=st.integers(0, 10),
    dead_share=st.floats(0, 1),
)
def test_refinement_never_exceeds_the_cap_and_fills_the_dead_first(
    n: int, spare: int, wanted: int, seed: int, dead_share: float
) -> None:
    gaussians, _ = random_gaussians(n, 20, 20, 2.0, seed=seed)
    population = Population.of(gaussians, n + spare, "cpu")
    dead = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < dead_share
    population.parameters["raw_opacities"][:n] = torch.where(dead, -9.0, 1.0)
    population.scores[:n] = 1
    population.seen[:n] = 2
    splits = refine(population, wanted, torch.Generator().manual_seed(seed))
    assert n <= population.count <= n + spare
    assert population.count <= max(n, wanted)
    assert population.count == n + max(0, splits - int(dead.sum()))
    still_dead = int((population.parameters["raw_opacities"][: population.count] < -8).sum())
    assert still_dead == max(0, int(dead.sum()) - splits)
    assert not population.scores.any()
    assert all(torch.isfinite(array).all() for array in population.active(population.parameters).values())


def test_what_few_photos_show_is_split_more_seldom() -> None:
    n = 3000
    gaussians, _ = random_gaussians(n, 20, 20, 2.0)
    shown_by = np.arange(n) % 3 + 1  # one, two and three photos, a third each
    population = Population.of(gaussians, 2 * n, "cpu", shown_by)
    population.parameters["raw_opacities"][:n] = 1.0
    population.scores[:n] = 1
    population.seen[:n] = 1
    refine(population, n + 300, torch.Generator().manual_seed(1))
    split_by_photos = np.bincount(population.shown_by[n : population.count].long().numpy(), minlength=4)
    assert split_by_photos.sum() == 300
    # In proportion to 0.3, 0.6 and 1: 47, 95 and 158, give or take three standard deviations of a binomial
    assert split_by_photos[1:].tolist() == pytest.approx([47, 95, 158], abs=26)


def test_no_axis_is_shorter_than_its_least() -> None:
    gaussians, _ = random_gaussians(60, 20, 20, 2.0)
    before = gaussians.log_scales
    least = np.where(np.arange(60) % 2, np.median(before), -np.inf)
    population = Population.of(gaussians, 80, "cpu", least_log_scale=least)
    bound_shapes(population)
    np.testing.assert_allclose(population.snapshot().log_scales, np.maximum(before, least[:, None]), rtol=1e-6)
    population.parameters["raw_opacities"][:60] = 1.0
    population.scores[:60] = torch.arange(60) % 2
    population.seen[:60] = 1
    assert refine(population, 70, torch.Generator().manual_seed(1)) == 10
    halves = population.least_log_scale[60:70]
    assert torch.isfinite(halves).all(), "halves have their parents' least"
    assert (population.parameters["log_scales"][60:70] >= halves[:, None]).all()


def test_only_what_few_photos_show_is_kept_round() -> None:
    gaussians, _ = random_gaussians(60, 20, 20, 2.0)
    shown_by = np.where(np.arange(60) < 30, 2, 3)
    population = Population.of(gaussians, 80, "cpu", shown_by)
    bound_shapes(population)
    before, after = np.sort(gaussians.log_scales, axis=1), np.sort(population.snapshot().log_scales, axis=1)
    np.testing.assert_array_equal(after[30:], before[30:])
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    bound = before[:30, 1] + np.log(schedule.MOST_ELONGATED)
    np.testing.assert_allclose(after[:30, 2], np.minimum(before[:30, 2], bound), rtol=1e-6)
    assert (before[:30, 2] > bound).any()


def test_nothing_is_split_that_no_image_asked_for() -> None:
    gaussians, _ = random_gaussians(30, 20, 20, 2.0)
    population = Population.of(gaussians, 60, "cpu")
    assert refine(population, 60, torch.Generator()) == 0
    assert population.count == 30


def test_a_split_keeps_the_picture_about_as_it_was() -> None:
    gaussians, camera = random_gaussians(40, 60, 60, 5.0, sh_degree=0)
    population = Population.of(gaussians, 80, "cpu")
    population.first_moments["means"][:] = 1
    population.updates[:] = 5
    split(population, torch.arange(40), torch.arange(40, 80))
    population.count = 80
    rasterizer = rasterizer_for("cpu")
    before, after = rasterizer.render(gaussians, camera), rasterizer.render(population.snapshot(), camera)
    assert np.abs(after - before).mean() < 0.05  # of colours in 0..1
    middle = (population.parameters["means"][:40] + population.parameters["means"][40:]) / 2
    np.testing.assert_allclose(middle, gaussians.means, atol=1e-5)
    assert not population.first_moments["means"].any()
    assert not population.updates.any()


def test_snapshot_is_a_copy_and_shared_is_not() -> None:
    gaussians, _ = random_gaussians(5, 20, 20, 2.0)
    population = Population.of(gaussians, 8, "cpu")
    copy, shared = population.snapshot(), population.shared_gaussians()
    population.parameters["means"] += 1
    np.testing.assert_array_equal(copy.means, gaussians.means)
    np.testing.assert_array_equal(shared.means, gaussians.means + 1)
    assert all(len(getattr(shared, name)) == 5 for name in PARAMETERS)


def test_finishing_drops_only_what_is_never_drawn() -> None:
    gaussians, camera = random_gaussians(200, 40, 40, 3.0)
    faint = gaussians.raw_opacities.copy()
    faint[::2] = -7  # sigmoid: 1/1097
    gaussians = dataclasses.replace(gaussians, raw_opacities=faint)
    finished = finished_gaussians(gaussians)
    assert len(finished) == 100
    rasterizer = rasterizer_for("cpu")
    np.testing.assert_allclose(rasterizer.render(finished, camera), rasterizer.render(gaussians, camera), atol=1e-5)
    broken = gaussians.means.copy()
    broken[3, 1] = np.inf
    with pytest.raises(TrainingDivergedError, match="1 of 200 Gaussians have means"):
        finished_gaussians(dataclasses.replace(gaussians, means=broken))
