"""`spaceport demo`: its flights have folders of their own, and can be had without a reconstruction."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.demo import flight_options
from tasks.core.errors import OptionsError


def test_photos_only_takes_a_towns_photos_once_and_leaves_the_standard_flight_alone(tmp_path: Path) -> None:
    standard = tmp_path / "demo" / "drone-demo"
    standard.mkdir(parents=True)
    arguments = ["demo", "--photos", "8", "--extent", "100", "--photos-only", "--workspace", str(tmp_path)]
    ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert ended.exit_code == 0
    folder = tmp_path / "demo" / "drone-demo-8-photos-100-m"
    photos = sorted(folder.iterdir())
    assert [photo.name for photo in photos] == [f"DEMO_{number:04d}.JPG" for number in range(1, 9)]
    with Image.open(photos[0]) as photo:
        assert photo.size == (640, 480)
    beside = [folder.parent / f"{folder.name}{end}" for end in ("_ground_truth.json", "_heights.npz")]
    for place in (folder, *beside):
        assert place.exists()
        assert str(place) in ended.output
    taken = [place.stat().st_mtime_ns for place in (*photos, *beside)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert [place.stat().st_mtime_ns for place in (*photos, *beside)] == taken
    assert list(standard.iterdir()) == []
    assert sorted(folder.parent.iterdir()) == sorted([standard, folder, *beside])


@pytest.mark.parametrize(
    ("photos", "extent_m", "message"),
    [
        (7, None, "--photos 7: input should be greater than or equal to 8"),
        (5001, 300, "--photos 5001: input should be less than or equal to 5000"),
        (800, 1001, "--extent 1001: input should be less than or equal to 1000"),
        (None, 60, "--extent 60: an extent of 60 m is too small for a town; take 100 m or more"),
    ],
)
def test_flights_out_of_bounds_are_refused(photos: int | None, extent_m: int | None, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        flight_options(photos, extent_m)


def test_without_numbers_the_flight_is_the_standard_one() -> None:
    assert (flight_options(None, None).photos, flight_options(None, None).extent_m) == (36, 0)
    assert (flight_options(200, None).photos, flight_options(200, None).width) == (200, 1152)
    assert (flight_options(None, 300).photos, flight_options(None, 300).width) == (36, 640)
