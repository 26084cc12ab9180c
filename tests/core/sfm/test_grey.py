"""Small grey copies: what features are found in must be the photo, in its place."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.sfm.grey import MOST_CONTRAST, GreyJob, contrast_of, equalised, scaled_size, write_grey


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
    write_grey(GreyJob(tmp_path / "photo.jpg", tmp_path / "grey.jpg"), 400)
    with Image.open(tmp_path / "grey.jpg") as grey:
        assert (grey.mode, grey.size, grey.format) == ("L", (400, 300), "PPM")
        wanted = photo.convert("L").resize((400, 300), Image.Resampling.BOX)
        assert np.abs(np.asarray(grey, dtype=float) - np.asarray(wanted, dtype=float)).max() <= 2


def test_contrast_is_raised_where_it_is_low_and_nowhere_too_much() -> None:
    """A pale half beside a sharp one: the pale one gains the most, no slope by more than the limit, order stays."""
    rng = np.random.default_rng(0)
    pattern = rng.uniform(-1, 1, (300, 400)).repeat(2, axis=0).repeat(2, axis=1)
    pale = (150 + np.where(np.arange(800) < 400, 6, 60) * pattern).astype(np.uint8)
    raised = equalised(pale).astype(float)
    gains = [raised[:, half].std() / pale[:, half].std() for half in (slice(50, 350), slice(450, 750))]
    assert 2 < gains[0] <= MOST_CONTRAST + 1  # what is cut off a peak is shared out again
    assert gains[0] > 1.5 * gains[1]
    tile = (slice(0, 60), slice(0, 90))  # of one curve and its neighbours
    assert np.corrcoef(pale[tile].ravel(), raised[tile].ravel())[0, 1] > 0.95
    flat = equalised(np.full((240, 320), 128, np.uint8))
    assert flat.std() == 0
    assert equalised(np.zeros((9, 7), np.uint8)).shape == (9, 7)


def test_contrast_of_a_photo(tmp_path: Path) -> None:
    checks = (np.indices((480, 640)).sum(axis=0) // 160 % 2 * 100 + 70).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "checks.png")
    assert contrast_of(tmp_path / "checks.png") == pytest.approx(50, abs=1)
