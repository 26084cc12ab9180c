"""Directions instead of degrees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.georeference import EARTH_RADIUS_M, latitude_longitude, moved, nvectors

METER_DEG = 180 / np.pi / EARTH_RADIUS_M


@given(st.floats(-89.99, 89.99), st.floats(-179.99, 179.99))
def test_degrees_come_back(latitude: float, longitude: float) -> None:
    [vector] = nvectors(np.array([latitude]), np.array([longitude]))
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert latitude_longitude(3 * vector) == pytest.approx((latitude, longitude), abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0.0, 180 - METER_DEG), (0.0, -180 + METER_DEG)),
        ((90 - METER_DEG, 0.0), (90 - METER_DEG, 180.0)),
        ((-90 + METER_DEG, 90.0), (-90 + METER_DEG, -90.0)),
    ],
)
def test_two_metres_are_two_metres_everywhere(one: tuple[float, float], other: tuple[float, float]) -> None:
    first, second = nvectors(*np.transpose([one, other]))
    assert np.linalg.norm(first - second) * EARTH_RADIUS_M == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("place", [(46.5, 8.0), (0.0, 180.0), (90.0, 0.0), (-90.0, 20.0), (89.99999, -170.0)])
def test_a_place_moves_by_metres_east_and_north(place: tuple[float, float]) -> None:
    start, end = nvectors(*np.transpose([place, moved(*place, 30.0, 40.0)]))
    assert np.linalg.norm(end - start) * EARTH_RADIUS_M == pytest.approx(50, abs=1e-6)
    back = moved(*moved(46.5, 8.0, 30.0, 40.0), -30.0, -40.0)
    assert back == pytest.approx((46.5, 8.0), abs=1e-8)
