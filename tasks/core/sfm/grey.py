"""Grey copies of photos for the feature extractor, no larger than it needs.

pycolmap decodes whole photos in colour, and scales them afterwards: a third of the cost of features in a 9 MP JPEG.
Pillow decodes the grey channel alone. It could also decode at half the size, and save another 0.03 CPU-s of a 9 MP
photo; but features of such pixels moved brighton_beach's cameras twice as far from those of pycolmap's defaults (0.076°
instead of 0.039°, median; focal length 1.6 % off instead of 0.7 %).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.image_file import open_image
from tasks.core.photoset import Photo

TILES = 8  # along each side, with a curve of contrast each
MOST_CONTRAST = 3.0  # times that of an image of all greys alike; more makes features of noise
CONTRAST_SIDE = 256  # px
VIDEO_IMAGE_SIZE, VIDEO_SHARE = 1280, 2 / 3  # px, and of the long side: up to 2400 px it is the share that counts


def features_image_size(photos: tuple[Photo, ...], limit: int) -> int:
    """Return the long side (px) at which features are searched for: at most `limit`, and less for frames of a video.

    Pixels of a 1920 px frame are as much its compression as the place. At 1280 px the fox needs 26 CPU-s instead of
    44 and its cameras are nearer to its transforms.json (rotations at most 0.44° off, instead of 0.51°).
    """
    long_side = max(max(photo.width, photo.height) for photo in photos)
    return min(limit, max(VIDEO_IMAGE_SIZE, round(long_side * VIDEO_SHARE)))


def scaled_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Return width and height (px) of a photo whose long side is at most `long_side`."""
    scale = min(1.0, long_side / max(width, height))
    return max(round(width * scale), 1), max(round(height * scale), 1)


@dataclass(frozen=True)
class GreyJob:
    """A grey copy to make."""

    source: Path
    target: Path
    equalised: bool = False  # its contrast, locally
    reduced_by: int | None = None  # whole number; None where no smaller copy is wanted


def write_grey(job: GreyJob, long_side: int) -> NDArray[np.uint8] | None:
    """Store a photo as an 8-bit grey image with a long side of at most `long_side` px.

    Returns:
        Its pixels [h, w] with sides divided by `reduced_by`, as they were before the contrast changed.
    """
    with open_image(job.source) as photo:
        size = scaled_size(photo.width, photo.height, long_side)
        photo.draft("L", photo.size)  # JPEG only
        grey = photo.convert("L")
    if grey.size != size:
        grey = grey.resize(size, Image.Resampling.HAMMING)  # as sharp as bicubic, without its ringing
    small = None if job.reduced_by is None else np.asarray(grey.reduce(job.reduced_by))
    if job.equalised:
        grey = Image.fromarray(equalised(np.asarray(grey)))
    grey.save(job.target, format="PPM")  # no compression to pay for, and none to undo
    return small


def write_all_grey(jobs: Sequence[GreyJob], long_side: int, threads: int) -> list[NDArray[np.uint8] | None]:
    """Call `write_grey` for all jobs, and return what it returns; Pillow decodes without the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(lambda job: write_grey(job, long_side), jobs))


def contrast_of(source: Path) -> float:
    """Return the standard deviation of a photo's brightness in a small copy of it, in grey levels of 255."""
    with open_image(source) as photo:
        photo.draft("L", (CONTRAST_SIDE, CONTRAST_SIDE))
        grey = photo.convert("L")
    grey.thumbnail((CONTRAST_SIDE, CONTRAST_SIDE), Image.Resampling.BOX)
    return float(np.asarray(grey).std())


def equalised(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Raise the contrast of a grey image [H, W] where it is low, and nowhere by more than MOST_CONTRAST + 1.

    Contrast limited adaptive histogram equalisation (Zuiderveld 1994, Graphics Gems IV): each of TILES x TILES parts
    has its own curve, the histogram's integral with its peaks cut off, and pixels between four middles of parts take
    the bilinear mean of their four curves.
    """
    height, width = grey.shape
    rows, columns = np.linspace(0, height, TILES + 1).astype(int), np.linspace(0, width, TILES + 1).astype(int)
    curves = np.empty((TILES, TILES, 256), np.float32)
    for i in range(TILES):
        for j in range(TILES):
            tile = grey[rows[i] : max(rows[i + 1], rows[i] + 1), columns[j] : max(columns[j + 1], columns[j] + 1)]
            counts = np.bincount(tile.ravel(), minlength=256).astype(np.float64)
            limit = MOST_CONTRAST * tile.size / 256
            cut = np.minimum(counts, limit)
            cut += (tile.size - cut.sum()) / 256
            curves[i, j] = 255 * np.cumsum(cut) / tile.size
    y = np.clip((np.arange(height) + 0.5) * TILES / height - 0.5, 0, TILES - 1)
    x = np.clip((np.arange(width) + 0.5) * TILES / width - 0.5, 0, TILES - 1)
    i, j = np.minimum(y.astype(int), TILES - 2)[:, None], np.minimum(x.astype(int), TILES - 2)
    v, u = (y[:, None] - i).astype(np.float32), (x - j).astype(np.float32)
    upper = (1 - u) * curves[i, j, grey] + u * curves[i, j + 1, grey]
    lower = (1 - u) * curves[i + 1, j, grey] + u * curves[i + 1, j + 1, grey]
    return np.asarray(np.clip((1 - v) * upper + v * lower, 0, 255) + 0.5).astype(np.uint8)
