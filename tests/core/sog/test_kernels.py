"""The fast parts of the writer beside slow and plain ones."""

import itertools

import numpy as np
import pytest
from scipy.cluster.vq import kmeans2

from tasks.core.sog import codebook as codebook_module
from tasks.core.sog import palette as palette_module
from tasks.core.sog.codebook import make_codebook, nearest_entries
from tasks.core.sog.ordering import spatial_order
from tasks.core.sog.palette import make_palette


def ones(points: np.ndarray) -> np.ndarray:
    return np.ones(len(points), np.float32)


def least_error_by_trying_all(values: np.ndarray, weights: np.ndarray, segments: int) -> float:
    """Optimal weighted k-segment error of ascending values, by the plain O(k n²) recurrence."""
    n = len(values)
    error = np.zeros((n + 1, n + 1))
    for i in range(n):
        for j in range(i + 1, n + 1):
            mean = np.average(values[i:j], weights=weights[i:j])
            error[i, j] = (weights[i:j] * (values[i:j] - mean) ** 2).sum()
    best = np.full(n + 1, np.inf)
    best[0] = 0
    for _ in range(segments):
        best = np.array([min((best[i] + error[i, j] for i in range(j)), default=np.inf) for j in range(n + 1)])
    return float(best[n])


@pytest.mark.parametrize(("n", "segments"), [(30, 5), (57, 8), (64, 63), (12, 12), (40, 1)])
def test_cuts_are_optimal(n: int, segments: int) -> None:
    rng = np.random.default_rng(n)
    values, weights = np.sort(rng.normal(size=n) ** 3), rng.uniform(0.1, 5, n)
    sums = [np.concatenate([[0.0], np.cumsum(weights * values**power)]) for power in range(3)]
    bounds = codebook_module._best_cuts(sums[0], sums[1], sums[2], segments)
    assert bounds[0] == 0
    assert bounds[-1] == n
    assert (np.diff(bounds) > 0).all()
    error = 0.0
    for i, j in itertools.pairwise(bounds):
        mean = np.average(values[i:j], weights=weights[i:j])
        error += (weights[i:j] * (values[i:j] - mean) ** 2).sum()
    # 1e-9: float64 sums of some ten squares below 100
    assert error == pytest.approx(least_error_by_trying_all(values, weights, segments), abs=1e-9)


def test_codebook_serves_the_bulk_and_the_outliers() -> None:
    rng = np.random.default_rng(1)
    bulk, outliers = rng.normal(size=50_000), rng.uniform(500, 1000, 20)
    values = np.concatenate([bulk, outliers]).astype(np.float32)
    book = make_codebook(values)
    error = np.abs(book[nearest_entries(values, book)] - values)
    # 256 optimal levels of a normal distribution err by 0.0104 rms (Panter and Dite: √(√3π/2)/256)
    assert np.sqrt((error[:50_000] ** 2).mean()) < 1.3 * 0.0104
    assert error.max() < 25  # the outliers get levels of their own, though they are 1 in 2500


def test_nearest_entries_are_nearest() -> None:
    rng = np.random.default_rng(2)
    book = np.sort(rng.normal(size=256)).astype(np.float32)
    book[100:103] = book[100]
    values = np.concatenate([rng.normal(size=3000) * 2, book, [-50, 50]]).astype(np.float32)
    distance = np.abs(values[:, None] - book[nearest_entries(values, book)][:, None])[:, 0]
    np.testing.assert_array_equal(distance, np.abs(values[:, None] - book).min(axis=1))


def test_the_order_is_a_curve_through_neighbours() -> None:
    """A Hilbert curve visits every cell of a grid once, and each next to the one before: that names it."""
    axis = np.arange(0, 16, dtype=np.uint16)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    shuffled = grid[np.random.default_rng(3).permutation(len(grid))]
    for scale in (1, 4096):  # the lowest bits, and the highest
        path = (shuffled * scale)[spatial_order((shuffled * scale).astype(np.uint16))].astype(int)
        np.testing.assert_array_equal(np.abs(np.diff(path, axis=0)).sum(axis=1), scale)


def test_equal_positions_keep_their_order() -> None:
    points = np.random.default_rng(3).integers(0, 3, (5000, 3)).astype(np.uint16) * 20_000
    order = spatial_order(points).astype(int)
    np.testing.assert_array_equal(np.sort(order), np.arange(5000))
    stays = (np.diff(points[order].astype(int), axis=0) == 0).all(axis=1)
    assert stays.sum() > 4900
    assert (np.diff(order)[stays] > 0).all()


@pytest.mark.parametrize("width", [9, 24, 45])
def test_palette_is_as_good_as_flat_k_means(width: int) -> None:
    """Cells cost some quality, the choice among near cells brings it back."""
    rng = np.random.default_rng(4)
    points = (rng.normal(size=(6000, 5)) @ rng.normal(size=(5, width)) + 0.1 * rng.normal(size=(6000, width))).astype(
        np.float32
    )
    palette = make_palette(points, ones(points), 1024, lambda share: None)
    assert len(palette.entries) <= 1024
    error = np.sqrt(((palette.entries[palette.labels] - points) ** 2).mean())
    centres, labels = kmeans2(points, 1024, iter=8, minit="points", rng=np.random.default_rng(4), missing="warn")
    flat = np.sqrt(((centres[labels] - points) ** 2).mean())
    assert error < 1.05 * flat


def test_labels_name_the_nearest_entry_of_near_cells() -> None:
    """With all cells near, the label is the nearest entry of all: checked by trying all."""
    points = np.random.default_rng(5).normal(size=(3000, 9)).astype(np.float32)
    palette = make_palette(points, ones(points), 512, lambda share: None)  # two cells, and four are looked at
    distances = ((points[:, None].astype(np.float64) - palette.entries) ** 2).sum(axis=2)
    chosen = distances[np.arange(3000), palette.labels]
    # 1e-5: float32 differences of squared norms about 10
    assert (chosen <= distances.min(axis=1) + 1e-5).all()


def test_palette_puts_the_most_used_first_and_keeps_none_unused() -> None:
    points = np.random.default_rng(6).normal(size=(2500, 9)).astype(np.float32)
    counts = np.bincount(make_palette(points, ones(points), 300, lambda share: None).labels)
    assert (counts > 0).all()
    assert (np.diff(counts) <= 0).all()


def test_palette_of_few_points_is_exact() -> None:
    points = np.random.default_rng(7).normal(size=(100, 9)).astype(np.float32).repeat(3, axis=0)
    palette = make_palette(points, ones(points), 1024, lambda share: None)
    assert len(palette.entries) == 100
    np.testing.assert_array_equal(palette.entries[palette.labels], points)


@pytest.mark.parametrize("total", [10, 11, 37, 500])
def test_entries_are_shared_out_fully(total: int) -> None:
    sizes = np.array([1, 2, 300, 40, 0, 7, 90, 5, 5, 50, 1])
    distortions = sizes * np.linspace(0, 3, len(sizes))
    share = palette_module._share_entries(total, distortions, sizes)
    assert share.sum() == min(total, sizes.sum())
    assert (share <= sizes).all()
    assert (share[sizes > 0] >= 1).all()
