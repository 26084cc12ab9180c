"""Small grey copies: what features are found in must be the photo, in its place."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.sfm.grey import scaled_size, write_grey


@pytest.mark.parametrize(("size", "long_side", "expected"), [
    ((4000, 2250), 1600, (1600, 900)), ((1080, 1920), 1280, (720, 1280)), ((640, 480), 1600, (640, 480)),
])  # fmt: skip
def test_the_long_side_is_at_most_what_was_asked_for(
    size: tuple[int, int], long_side: int, expected: tuple[int, int]
) -> None:
    assert scaled_size(*size, long_side) == expected


def test_the_copy_shows_the_same_thing_in_the_same_place(tmp_path: Path) -> None:
    """A ramp of colours, scaled down, is within 2 levels of the ramp itself."""
    x, y = np.meshgrid(np.linspace(0, 255, 1280), np.linspace(0, 255, 960))
    photo = Image.fromarray(np.stack([x, y, x], axis=-1).astype(np.uint8))
    photo.save(tmp_path / "photo.jpg", quality=95)
    write_grey(tmp_path / "photo.jpg", tmp_path / "grey.jpg", 400)
    with Image.open(tmp_path / "grey.jpg") as grey:
        assert (grey.mode, grey.size, grey.format) == ("L", (400, 300), "PPM")
        wanted = photo.convert("L").resize((400, 300), Image.Resampling.BOX)
        assert np.abs(np.asarray(grey, dtype=float) - np.asarray(wanted, dtype=float)).max() <= 2
