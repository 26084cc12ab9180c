"""A strip of photos whose features are simulated: each sees a window of one long row of places."""

from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

FEATURES, STEP = 240, 40  # places in a photo, and between two photos: five photos on either side overlap


def write_strip(database: Path, order: NDArray[np.intp], *, noise: float = 6.0) -> tuple[str, ...]:
    """Write a database with the photos at these places of the strip, in this order; returns their names in it."""
    generator = np.random.default_rng(0)
    places = generator.gamma(0.6, 30, (len(order) * STEP + FEATURES, 128)).clip(0, 255)
    pycolmap.Database.open(database).close()
    names = tuple(f"{i:06d}.jpg" for i in range(1, len(order) + 1))
    with pycolmap.Database.open(database) as strip:
        camera = strip.write_camera(pycolmap.Camera(model="PINHOLE", width=64, height=48, params=[50, 50, 32, 24]))
        for name, place in zip(names, order, strict=True):
            number = strip.write_image(pycolmap.Image(name=name, camera_id=camera))
            seen = places[place * STEP : place * STEP + FEATURES]
            noisy = (seen + generator.normal(0, noise, seen.shape)).clip(0, 255).astype(np.uint8)
            strip.write_descriptors(number, pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, noisy))
    return names
