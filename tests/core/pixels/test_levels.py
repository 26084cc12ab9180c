"""Grey of more than 8 bits: which levels become black and white."""

import itertools

import numpy as np
import pytest
from PIL import Image

from tasks.core.pixels.levels import DEEP_MODES, Levels, common_levels, eight_bit, sample_levels


def scene(seed: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Brightness [96, 128] in 0..1 of one of several places."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.uniform(low, high, (6, 8)).astype(np.float32))
    return np.asarray(coarse.resize((128, 96), Image.Resampling.BILINEAR))


def whole_numbers(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values).astype(np.uint16))


def test_temperatures_are_stretched_over_what_the_set_has() -> None:
    warm = [whole_numbers(7000 + 1500 * scene(seed)) for seed in range(4)]
    levels = common_levels(map(sample_levels, warm))
    assert 7000 <= levels.black < 7100
    assert 8400 < levels.white <= 8500
    assert np.asarray(eight_bit(warm[0], levels)).std() > 30


@pytest.mark.parametrize("full", [255, 1023, 4095, 16383, 65535])
def test_photographs_keep_their_exposure(full: int) -> None:
    """A dark photo of a set is dark: white is the most that the bits of the set can be."""
    bright, dark = whole_numbers(full * scene(1)), whole_numbers(full * scene(2, 0, 0.2))
    levels = common_levels(map(sample_levels, (bright, dark)))
    assert levels == Levels(0, full)
    assert np.asarray(eight_bit(dark, levels)).mean() == pytest.approx(255 * scene(2, 0, 0.2).mean(), abs=0.6)  # levels


@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0])
def test_photographs_in_floats(full: float) -> None:
    image = Image.fromarray((full * scene(1)).astype(np.float32))
    assert common_levels([sample_levels(image)]) == Levels(0, full)


def test_temperatures_in_floats_and_below_zero() -> None:
    levels = common_levels([sample_levels(Image.fromarray((-12 + 30 * scene(1)).astype(np.float32)))])
    assert -12 <= levels.black < -9
    assert 15 < levels.white <= 18
    celsius = common_levels([sample_levels(Image.fromarray((20 + 80 * scene(1)).astype(np.float32)))])
    assert celsius.black >= 20


def test_values_that_are_no_numbers_and_single_broken_pixels_change_nothing() -> None:
    values = (7000 + 1500 * scene(1)).astype(np.float32)
    whole = common_levels([sample_levels(Image.fromarray(values))])
    values[3, 4:9] = [np.nan, np.inf, -np.inf, 65535, 0]
    levels = common_levels([sample_levels(Image.fromarray(values))])
    assert levels.black == pytest.approx(whole.black, abs=30)
    assert levels.white == pytest.approx(whole.white, abs=30)
    assert np.asarray(eight_bit(Image.fromarray(values), levels))[3, 4] == 0
    nothing = Image.fromarray(np.full((80, 80), np.nan, np.float32))
    assert np.asarray(eight_bit(nothing, common_levels([sample_levels(nothing)]))).max() == 0


def test_the_order_of_photos_does_not_count() -> None:
    samples = [sample_levels(whole_numbers(7000 + 400 * seed + 900 * scene(seed))) for seed in range(4)]
    assert len({common_levels(order) for order in itertools.permutations(samples)}) == 1


def test_large_photos_are_sampled_evenly() -> None:
    ramp = np.linspace(0, 1, 3000)[:, None] * np.ones(1200)
    levels = common_levels([sample_levels(whole_numbers(20_000 + 3000 * ramp))])
    assert (levels.black, levels.white) == pytest.approx((20_003, 22_997), abs=6)  # 0.1 % of 3,000 levels at each end


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B"])
def test_all_modes_are_read_alike(mode: str) -> None:
    assert mode in DEEP_MODES
    grey = whole_numbers(7000 + 1500 * scene(1))
    image = grey if mode == "I;16" else grey.convert("I").convert(mode) if mode != "F" else grey.convert("F")
    assert image.mode == mode
    levels = Levels(7000, 8500)
    assert np.array_equal(np.asarray(eight_bit(image, levels)), np.asarray(eight_bit(grey, levels)))
