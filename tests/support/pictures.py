"""Small pictures for tests: real files, made here."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_textured(path: Path, seed: int, size: tuple[int, int] = (160, 120)) -> None:
    """A photo-like file: smooth noise in three channels, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def save_black(path: Path) -> None:
    """A photo taken with the lens cap on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (160, 120)).save(path)
