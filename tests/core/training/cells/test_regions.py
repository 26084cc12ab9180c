"""Planes that divide space among cells."""

import numpy as np
import pytest

from tasks.core.training.cells.regions import as_lists, divide_space, from_lists

UP = np.array([0.0, 0.0, 1.0])


def street(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two places that no photo shows together, 40 m apart: points, and places in photos with their photos."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(0, 10, (600, 3))
    xyz[300:, 0] += 50
    photos = [(photo, rng.choice(300, 60, replace=False) + 300 * (photo % 2)) for photo in range(20)]
    cameras = np.repeat([photo for photo, _ in photos], 60)
    return xyz, xyz[np.concatenate([points for _, points in photos])], cameras


def test_a_plane_goes_where_no_photo_sees_both_sides() -> None:
    xyz, places, cameras = street()
    regions = divide_space(places, cameras, 2, UP)
    owners = regions.owner(xyz)
    assert len(set(owners[:300])) == len(set(owners[300:])) == 1
    assert owners[0] != owners[-1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_cells_share_the_work(count: int) -> None:
    rng = np.random.default_rng(1)
    places, cameras = rng.uniform(0, 100, (20_000, 3)) * [1, 1, 0.1], rng.integers(0, 50, 20_000)
    regions = divide_space(places, cameras, count, UP)
    shares = np.bincount(regions.owner(places), minlength=count) / len(places)
    assert regions.count == len(shares) == count
    # each of at most three planes may put 10 % more of its work on one side
    assert shares.min() > (1 - 0.3) ** np.ceil(np.log2(max(count, 2))) / count


def test_every_place_has_one_owner_and_is_inside_of_it_alone() -> None:
    _, places, cameras = street()
    regions = divide_space(places, cameras, 5, UP)
    places = np.random.default_rng(2).uniform(-500, 500, (500, 3))
    owners = regions.owner(places)
    beyond = np.stack([regions.outside_by(cell, places) for cell in range(5)])
    assert (beyond[owners, np.arange(500)] == 0).all()
    assert ((beyond == 0).sum(axis=0) == 1).all()


def test_planes_are_upright() -> None:
    _, places, cameras = street()
    for plane in divide_space(places, cameras, 4, UP).planes:
        assert abs(np.array(plane.normal) @ UP) < 1e-12


def test_distance_to_a_cell_is_that_to_its_wall() -> None:
    regions = from_lists([[1.0, 0.0, 0.0, 5.0, -1, -2]])
    places = np.array([[4.0, 0, 0], [5.0, 0, 0], [7.5, 3, 1]])
    assert regions.owner(places).tolist() == [0, 1, 1]
    assert regions.outside_by(0, places).tolist() == [0, 0, 2.5]


def test_planes_survive_json() -> None:
    _, places, cameras = street()
    regions = divide_space(places, cameras, 4, UP)
    assert from_lists(as_lists(regions)) == regions
