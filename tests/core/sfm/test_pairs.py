"""The choice of photos to compare."""

from itertools import combinations, pairwise

import numpy as np
import pycolmap
import pytest

from tasks.core.errors import OptionsError
from tasks.core.photoset import Gps, Photo
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import choose_pairs, sequential_pairs, spatial_pairs, wider_pairs

DEGREES_PER_M = 1 / 111_320


def photos(
    n: int, *, gps: bool = False, gap_seconds: int | None = None, name: str = "img_{:04}.jpg"
) -> tuple[Photo, ...]:
    """A lawnmower flight at the equator, 10 m between neighbours, 10 to a row."""
    made = []
    for i in range(n):
        row, column = divmod(i, 10)
        east_m, north_m = 10.0 * (column if row % 2 == 0 else 9 - column), 10.0 * row
        place = Gps(latitude_deg=north_m * DEGREES_PER_M, longitude_deg=east_m * DEGREES_PER_M, altitude_m=50.0)
        second = i * (gap_seconds or 0)
        made.append(
            Photo(
                name=name.format(i),
                width=4,
                height=3,
                sha256="",
                gps=place if gps else None,
                taken_at=None if gap_seconds is None else f"2024-01-01T00:{second // 60:02}:{second % 60:02}",
            )
        )
    return tuple(made)


def test_sequential_pairs_by_hand() -> None:
    steps_of_1 = {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)}
    steps_of_2 = {(0, 2), (1, 3), (2, 4), (3, 5)}
    steps_of_4 = {(0, 4), (1, 5)}
    assert set(sequential_pairs(6, 2)) == steps_of_1 | steps_of_2 | steps_of_4
    assert set(sequential_pairs(6, 2, powers=False)) == steps_of_1 | steps_of_2
    assert sequential_pairs(3, 10) == [(0, 1), (1, 2), (0, 2)]


def test_spatial_pairs_against_brute_force() -> None:
    flight = photos(37, gps=True)
    at = np.array([(p.gps.longitude_deg, p.gps.latitude_deg) for p in flight if p.gps])
    distances = np.linalg.norm(at[:, None] - at[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    pairs = set(spatial_pairs(flight, 4))
    for i, row in enumerate(distances):
        # ties may fall either way, so compare distances: whatever is nearer than the 4th neighbour must be there
        for j in np.flatnonzero(row < np.sort(row)[3] * 0.999):
            assert (min(i, j), max(i, j)) in pairs
    assert len(pairs) <= 37 * 4


@pytest.mark.parametrize(
    ("set_of_photos", "matcher"),
    [
        (photos(11, gps=True), "exhaustive"),
        (photos(12, gps=True), "spatial+sequential"),
        (photos(20, gap_seconds=1), "exhaustive"),
        (photos(21, gps=True), "spatial+sequential"),
        (photos(60, gap_seconds=1), "sequential"),
        (photos(60, gap_seconds=30), "exhaustive"),
        (photos(60), "sequential"),
        (photos(3, name="front_{}.jpg") + photos(57, name="{:04}.jpg"), "exhaustive"),
        (photos(110, gap_seconds=30) + photos(110, name="b{}.jpg", gap_seconds=30), "appearance"),
    ],
    ids=[
        "few with gps",
        "a dozen with gps",
        "few",
        "gps",
        "burst",
        "stills",
        "frames of a video",
        "mixed names",
        "many",
    ],
)
def test_auto_looks_at_number_gps_and_order(set_of_photos: tuple[Photo, ...], matcher: str) -> None:
    assert choose_pairs(set_of_photos, SfmOptions()).matcher == matcher


def test_gps_within_its_own_noise_is_not_believed() -> None:
    close = tuple(
        photo.model_copy(update={"gps": Gps(latitude_deg=1e-5 * (i % 3), longitude_deg=0, altitude_m=0)})
        for i, photo in enumerate(photos(40, gap_seconds=1))
    )
    assert choose_pairs(close, SfmOptions()).matcher == "sequential"


@pytest.mark.parametrize("place", [(46.5, 180.0), (0.0, -180.0), (90.0, 0.0), (-90.0, 0.0)])
def test_neighbours_at_the_date_line_and_the_poles_are_those_on_the_ground(place: tuple[float, float]) -> None:
    """A grid of 6 by 6 photos, 20 m apart, each with its eight neighbours among the nearest twelve."""
    grid_m = np.array([(20.0 * (i % 6 - 2.5), 20.0 * (i // 6 - 2.5), 0.0) for i in range(36)])
    degrees = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84).enu_to_ellipsoid(grid_m, *place, 0.0)
    set_of_photos = tuple(
        photo.model_copy(update={"gps": Gps(latitude_deg=latitude, longitude_deg=longitude)})
        for photo, (latitude, longitude, _) in zip(photos(36), degrees.tolist(), strict=True)
    )
    found = set(spatial_pairs(set_of_photos, 12))
    for i, j in combinations(range(36), 2):
        distance_m = np.linalg.norm(grid_m[i] - grid_m[j])
        if distance_m < 30:
            assert (i, j) in found
        assert (i, j) not in found or distance_m < 90


def test_photos_without_gps_are_still_compared() -> None:
    some = photos(50, gps=True)
    some = (*some[:10], some[10].model_copy(update={"gps": None}), *some[11:])
    choice = choose_pairs(some, SfmOptions())
    assert choice.matcher == "spatial+sequential"
    assert sum(10 in pair for pair in choice.pairs) >= 10


def test_pairs_are_distinct_sorted_and_grow_with_the_options() -> None:
    flight = photos(100, gps=True)
    few = choose_pairs(flight, SfmOptions(spatial_neighbors=4)).pairs
    many = choose_pairs(flight, SfmOptions(spatial_neighbors=12)).pairs
    assert list(few) == sorted(set(few))
    assert all(a < b for a, b in few)
    assert set(few) < set(many)
    assert len(choose_pairs(flight, SfmOptions(matcher="exhaustive")).pairs) == 100 * 99 // 2


def test_further_tries_compare_more() -> None:
    options = SfmOptions()
    for n, matchers in {
        30: ["exhaustive"],  # thrice the neighbours would be nearly everybody
        100: ["spatial+sequential", "exhaustive"],
        400: ["spatial+sequential", "spatial+sequential+appearance"],
    }.items():
        flight = photos(n, gps=True)
        choices = [choose_pairs(flight, options), *wider_pairs(flight, choose_pairs(flight, options), options)]
        assert [choice.matcher for choice in choices[1:]] == matchers
        assert all(
            (set(less.pairs), less.similar) < (set(more.pairs), more.similar) for less, more in pairwise(choices)
        )
        assert (len(choices[-1].pairs) == n * (n - 1) // 2) == (n <= 300)


def test_nothing_is_left_to_compare_after_all_pairs() -> None:
    few = photos(100, gps=True)
    assert wider_pairs(few, choose_pairs(few, SfmOptions(matcher="exhaustive")), SfmOptions()) == ()


def test_neighbours_by_gps_need_gps() -> None:
    with pytest.raises(OptionsError, match="none of these 30 has it"):
        choose_pairs(photos(30), SfmOptions(matcher="spatial"))
