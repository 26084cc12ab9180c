"""Exposures of all photos, found from the colours of sparse points before training."""

import numpy as np

from tasks.core.training.cells.exposures import solved_log_gains, usable_logs
from tasks.core.training.views import IGNORED


def observed(gains: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logs of colours, photos and points: each photo shows the points near it, a tenth of them in a wrong colour."""
    rng = np.random.default_rng(seed)
    photos = len(gains)
    colors = rng.uniform(-2, -0.7, (40 * photos, 3))
    cameras = np.repeat(np.arange(photos), 120)
    points = (40 * cameras + np.tile(np.arange(120), photos)) % (40 * photos)
    logs = colors[points] + gains[cameras] + rng.normal(0, 0.03, (len(points), 3))
    wrong = rng.random(len(points)) < 0.1
    logs[wrong] += rng.normal(0, 1, (wrong.sum(), 3))
    return logs, cameras, points


def expected(gains: np.ndarray) -> np.ndarray:
    centred = gains - np.median(gains, axis=0)
    return np.sign(centred) * np.maximum(np.abs(centred) - IGNORED, 0)


def test_gains_of_photos_are_found_in_spite_of_wrong_colors() -> None:
    gains = np.where(np.arange(24)[:, None] % 3 == 0, 0.5, 0.0) * [1.0, 0.8, 1.1]
    logs, cameras, points = observed(gains)
    found = solved_log_gains(logs, cameras, points, 24, np.ones(24, bool))
    # 120 colours with a noise of 0.03, and a prior that draws a gain of 0.5 by 0.02 of it
    np.testing.assert_allclose(found, expected(gains), atol=0.03)


def test_equal_exposures_are_exactly_one() -> None:
    logs, cameras, points = observed(np.zeros((12, 3)))
    found = solved_log_gains(logs, cameras, points, 12, np.ones(12, bool))
    assert (found == 0).all()


def test_held_out_photos_change_no_other_gain() -> None:
    gains = np.linspace(-0.5, 0.5, 16)[:, None] * np.ones(3)
    logs, cameras, points = observed(gains)
    trained = np.arange(16) % 4 != 0
    found = solved_log_gains(logs, cameras, points, 16, trained)
    strange = logs + np.where(trained[cameras], 0, 0.7)[:, None]
    np.testing.assert_array_equal(solved_log_gains(strange, cameras, points, 16, trained)[trained], found[trained])


def test_dark_and_clipped_colors_tell_nothing() -> None:
    usable, _ = usable_logs(np.array([[3, 90, 90], [255, 90, 90], [90, 90, 90]], np.uint8))
    assert usable.tolist() == [False, False, True]
