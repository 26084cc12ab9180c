"""Grey copies of photos for the feature extractor, no larger than it needs.

pycolmap decodes whole photos in colour, and scales them afterwards: a third of the cost of features in a 9 MP JPEG.
Pillow decodes the grey channel alone. It could also decode at half the size, and save another 0.03 CPU-s of a 9 MP
photo; but features of such pixels moved brighton_beach's cameras twice as far from those of pycolmap's defaults (0.076°
instead of 0.039°, median; focal length 1.6 % off instead of 0.7 %).
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from tasks.core.image_file import open_image
from tasks.core.photoset import Photo

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


def write_grey(source: Path, target: Path, long_side: int) -> None:
    """Store a photo as an 8-bit grey image with a long side of at most `long_side` px."""
    with open_image(source) as photo:
        size = scaled_size(photo.width, photo.height, long_side)
        photo.draft("L", photo.size)  # JPEG only
        grey = photo.convert("L")
    if grey.size != size:
        grey = grey.resize(size, Image.Resampling.HAMMING)  # as sharp as bicubic, without its ringing
    grey.save(target, format="PPM")  # no compression to pay for, and none to undo


def write_all_grey(jobs: list[tuple[Path, Path]], long_side: int, threads: int) -> None:
    """Call `write_grey` for all (source, target); Pillow decodes without the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        list(pool.map(lambda job: write_grey(job[0], job[1], long_side), jobs))
