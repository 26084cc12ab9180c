"""Photos that look alike are those that show the same places."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.sfm.appearance import order_tells, photo_vectors, similar_pairs, top
from tests.core.sfm.strip import FEATURES, STEP, write_strip

PHOTOS = 24


def test_shuffled_photos_find_those_that_show_the_same(tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(PHOTOS)
    names = write_strip(tmp_path / "strip.db", order)
    pairs = similar_pairs(photo_vectors(tmp_path / "strip.db", names, 0), 4)
    apart = np.array([abs(int(order[a]) - int(order[b])) for a, b in pairs])
    assert (apart * STEP < FEATURES).mean() >= 0.98  # they overlap
    nearest = {(min(a, b), max(a, b)) for a in range(PHOTOS) for b in range(PHOTOS) if order[b] - order[a] == 1}
    assert len(nearest & set(pairs)) == len(nearest)


def test_the_same_photos_and_seed_have_the_same_vectors(tmp_path: Path) -> None:
    names = write_strip(tmp_path / "strip.db", np.arange(PHOTOS))
    first, again = (photo_vectors(tmp_path / "strip.db", names, 5) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)


def test_order_tells_neighbours_unless_photos_are_shuffled(tmp_path: Path) -> None:
    for folder, order in (("flown", np.arange(PHOTOS)), ("shuffled", np.random.default_rng(3).permutation(PHOTOS))):
        (tmp_path / folder).mkdir()
        names = write_strip(tmp_path / folder / "strip.db", order)
        vectors = photo_vectors(tmp_path / folder / "strip.db", names, 0)
        assert order_tells(vectors) == (folder == "flown")


def test_photos_without_features_look_like_none(tmp_path: Path) -> None:
    names = write_strip(tmp_path / "strip.db", np.arange(3))
    vectors = photo_vectors(tmp_path / "strip.db", names, 0)
    vectors[1] = 0
    assert similar_pairs(vectors, 2) == [(0, 2)]
    assert similar_pairs(np.zeros((4, 1), np.float32), 2) == []


@pytest.mark.parametrize(
    ("likeness", "count", "expected"),
    [
        ([0.1, 0.9, 0.5, 0.9, -1], 3, [1, 3, 2]),
        ([0.4, 0.4, 0.4, -np.inf], 2, [0, 1]),
        ([0.2, -np.inf, -0.3], 3, [0, 2]),
        ([0.2], 5, [0]),
    ],
    ids=["the greatest first", "of equal ones the first", "never -inf", "fewer than wanted"],
)
def test_the_most_alike(likeness: list[float], count: int, expected: list[int]) -> None:
    assert top(np.array(likeness, np.float32), count) == expected
