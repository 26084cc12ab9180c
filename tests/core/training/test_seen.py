"""Masks of pixels that several photos show, on scenes whose answer is known."""

import numpy as np
import pytest

from tasks.core.scene import Camera, SparsePoints
from tasks.core.training.coverage import SEEN_BY, covered_pixels, finest_pixels, photos_showing
from tasks.core.transforms import Float64

WIDTH, HEIGHT, FOCAL = 128, 96, 100.0


def looking_down(x: float, height: float = 10.0, name: str = "") -> Camera:
    """A camera over the plane z = 0; its image shows x - 6.4 to x + 6.4 there from a height of 10."""
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, 3] = -pose[:3, :3] @ [x, 0.0, height]
    return Camera(name or f"{x:g}", WIDTH, HEIGHT, FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, pose)


def points_at(xyz: Float64) -> SparsePoints:
    count = len(xyz)
    return SparsePoints(xyz, np.zeros((count, 3), np.uint8), np.zeros(count), np.full(count, 3, np.int32))


def plane(z: float = 0.0, left: float = -20.0, right: float = 40.0, gap: float = 0.4) -> Float64:
    x, y = np.meshgrid(np.arange(left, right, gap), np.arange(-8, 8, gap))
    return np.column_stack([x.ravel(), y.ravel(), np.full(x.size, z)])


def test_a_pixel_counts_where_enough_photos_have_it_in_frame() -> None:
    # The third of the others begins at x = 1.6, which is the photo's column 80
    others = [looking_down(0), looking_down(1), looking_down(8.0)]
    assert len(others) == SEEN_BY
    [mask] = covered_pixels([looking_down(0.0)], others, points_at(plane()))
    assert mask.shape == (HEIGHT, WIDTH)
    edge = np.flatnonzero(mask.any(axis=0)).min()
    assert edge == pytest.approx(80, abs=2)  # px, a cell
    assert mask[:, 84:].all()
    assert not mask[:, :76].any()


def test_what_stands_before_a_place_hides_it() -> None:
    roof = plane(z=6.0, left=-3.0, right=3.0)
    points = points_at(np.concatenate([plane(left=-20, right=-4), plane(left=4, right=40), roof]))
    below = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 6.0], [5.5, 0.0, 0.0]])
    found = photos_showing(below, [looking_down(0, height=12.0)] * 4, points)
    assert found.tolist() == [0, 4, 4]


def test_no_known_surface_is_not_covered() -> None:
    others = [looking_down(x) for x in (0, 0.5, 1, 1.5)]
    [mask] = covered_pixels([looking_down(0)], others, points_at(plane(left=-20, right=0)))
    assert mask[:, 20:60].all()
    assert not mask[:, 80:].any()  # no point within a sixteenth of the width
    few = points_at(plane()[:5])
    assert not covered_pixels([looking_down(0)], others, few)[0].any()


def test_points_that_are_not_finite_say_nothing() -> None:
    xyz = plane()
    broken = np.concatenate([xyz, [[np.nan, 0, 0], [np.inf, 0, 0]]])
    others = [looking_down(x) for x in (0, 0.5, 1)]
    masks = [covered_pixels([looking_down(0)], others, points_at(each))[0] for each in (xyz, broken)]
    np.testing.assert_array_equal(*masks)


def test_the_finest_pixel_is_that_of_the_nearest_photo_that_has_a_place_in_frame() -> None:
    cameras = [looking_down(0.0, height=10.0), looking_down(0.0, height=20.0), looking_down(30.0, height=5.0)]
    places = np.array([[0.0, 0, 0], [10.0, 0, 0], [30.0, 0, 1.0], [0.0, 0, 12.0], [-90.0, 0, 0]])
    # The depth over the focal length: 10 m, 20 m as the lower one ends at 6.4 m, 4 m, 8 m from above the first, none
    assert finest_pixels(places, cameras) == pytest.approx([0.1, 0.2, 0.04, 0.08, np.inf])
    assert finest_pixels(places, []) == pytest.approx([np.inf] * 5)
