"""Digital zoom counts in the focal length where the camera has not counted it."""

from tasks.core.photos.zoom import zoomed
from tasks.core.photoset import Photo


def photo(zoom: float, focal_px: float | None = 800.0, camera: str = "DJI FC330") -> Photo:
    return Photo(name="a.jpg", width=1200, height=900, sha256="", focal_px=focal_px, camera=camera, digital_zoom=zoom)


def test_one_focal_length_with_two_zooms_does_not_count_them() -> None:
    """One camera for both zooms tilted the scene by 12°."""
    assert [one.focal_px for one in zoomed([photo(1.0), photo(1.6), photo(1.0)])] == [800.0, 1280.0, 800.0]


def test_equivalents_that_count_the_zoom_stay() -> None:
    """As those of phones: their focal lengths differ with the zoom."""
    assert [one.focal_px for one in zoomed([photo(1.0), photo(1.6, 1280.0)])] == [800.0, 1280.0]


def test_one_zoom_for_all_stays() -> None:
    assert [one.focal_px for one in zoomed([photo(2.0), photo(2.0)])] == [800.0, 800.0]


def test_cameras_are_apart() -> None:
    assert [one.focal_px for one in zoomed([photo(1.0), photo(1.6, camera="other")])] == [800.0, 800.0]


def test_without_a_focal_length_there_is_nothing_to_count() -> None:
    assert [one.focal_px for one in zoomed([photo(1.0, None), photo(1.6, None)])] == [None, None]
