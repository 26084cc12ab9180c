"""Photos of one camera at several zooms are told by how large they show things, and photos from anywhere are not."""

import numpy as np
import pytest

from tasks.core.sfm.zoom import zoomed_groups


def sizes(*zooms: tuple[int, float], noise: float = 0.02) -> dict[int, float]:
    """Logarithms of sizes of (photos, zoom) each, in random order, up to a constant."""
    rng = np.random.default_rng(0)
    values = np.concatenate([np.full(count, np.log(zoom)) for count, zoom in zooms])
    values = rng.permutation(values) + rng.uniform(-noise, noise, len(values)) - 3
    return dict(enumerate(values.tolist(), start=1))


@pytest.mark.parametrize(
    "zooms",
    [[(9, 1), (9, 1.6)], [(10, 1), (5, 1.3), (5, 2)], [(20, 1), (1, 1.6)], [(3, 1), (2, 1.25)], [(4, 2), (30, 8)]],
)
def test_zooms_are_told_apart(zooms: list[tuple[int, float]]) -> None:
    made = sizes(*zooms)
    found = zoomed_groups(made)
    assert [len(images) for images, _ in found] == [count for count, _ in zooms[1:]]
    assert [factor for _, factor in found] == pytest.approx([zoom / zooms[0][1] for _, zoom in zooms[1:]], rel=0.05)
    for images, factor in found:
        assert all(made[i] == pytest.approx(np.log(factor * zooms[0][1]) - 3, abs=0.045) for i in images)


def test_other_distances_are_no_zoom() -> None:
    rng = np.random.default_rng(1)
    for count in (2, 3, 5, 10, 40):
        for spread in (0.02, 0.3, 1.5):
            made = dict(enumerate(rng.uniform(0, spread, count).tolist()))
            assert zoomed_groups(made) == []
    assert zoomed_groups({}) == zoomed_groups({1: 0.5}) == []
    assert zoomed_groups(sizes((10, 1), (10, 1.08))) == []
