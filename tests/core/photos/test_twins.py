"""One picture in several files, and pictures that only look alike."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from PIL.ExifTags import Base

from tasks.core.photos.likeness import alike, same_picture, thumbnail
from tests.conftest import PHOTO_SETS
from tests.core.photos.test_ingest import exif, folder_of, run, zip_of

SIZE = (640, 480)


@cache
def place(seed: int) -> Image.Image:
    """A picture of a place, larger than its photos: fields, with detail of all sizes."""
    rng = np.random.default_rng(seed)
    total = np.zeros((640, 800, 3))
    for cells in (6, 18, 54, 160):
        coarse = Image.fromarray(rng.integers(0, 255, (cells * 4 // 5, cells, 3), dtype=np.uint8))
        total += np.asarray(coarse.resize((800, 640), Image.Resampling.BICUBIC), float)
    return Image.fromarray((total / 4).astype(np.uint8))


def photo(seed: int, x: float = 60.0, y: float = 60.0, zoom: float = 1.0, noise: float = 2.0) -> Image.Image:
    """What a camera sees of a place from one pixel on, with its noise."""
    seen = place(seed).transform(SIZE, Image.Transform.AFFINE, (zoom, 0, x, 0, zoom, y), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(round(1000 * (x + y + zoom))).normal(0, noise, (SIZE[1], SIZE[0], 3))
    return Image.fromarray(np.clip(np.asarray(seen, float) + grain, 0, 255).astype(np.uint8))


def data(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


COPIES = {
    "HEIC beside JPEG": ("IMG_1.HEIC", lambda image: data(image, "HEIF", quality=80)),
    "re-encoded": ("IMG_1 (1).jpg", lambda image: data(image, quality=40)),
    "WebP": ("IMG_1.webp", lambda image: data(image, "WEBP", quality=60)),
    "resized": ("small/IMG_1.jpg", lambda image: data(image.resize((321, 241), Image.Resampling.LANCZOS))),
    "brighter": ("IMG_1-edited.jpg", lambda image: data(ImageEnhance.Brightness(image).enhance(1.25))),
    "contrast": ("IMG_1-edited.jpg", lambda image: data(ImageEnhance.Contrast(image).enhance(1.4))),
    "saturated": ("IMG_1-edited.jpg", lambda image: data(ImageEnhance.Color(image).enhance(1.8))),
    "black and white": ("IMG_E1.jpg", lambda image: data(image.convert("L"))),
    "turned by EXIF": ("IMG_1t.jpg", lambda image: data(turned(image), exif=orientation_6())),
}


def orientation_6() -> Image.Exif:
    block = Image.Exif()
    block[Base.Orientation] = 6
    return block


def turned(image: Image.Image) -> Image.Image:
    """A photo that EXIF's orientation 6 makes upright."""
    return image.transpose(Image.Transpose.ROTATE_90)


@pytest.mark.parametrize("case", COPIES)
def test_a_copy_of_a_picture_is_rejected_and_the_original_is_kept(case: str, tmp_path: Path) -> None:
    name, copied = COPIES[case]
    files = {f"IMG_{n}.jpg": data(photo(n), quality=92) for n in range(4)} | {name: copied(photo(1))}
    for source in (folder_of(tmp_path / "in", files), zip_of(tmp_path / "in.zip", files)):
        photos = run(source, tmp_path / f"out-{source.suffix}")
        assert [kept.name for kept in photos.photos] == [f"IMG_{n}.jpg" for n in range(4)]
        assert [(twin.name, twin.reason) for twin in photos.rejected] == [(name, "the same picture as IMG_1.jpg")]


def test_the_largest_and_then_that_with_metadata_is_kept(tmp_path: Path) -> None:
    one, two = photo(1), photo(2)
    files = {
        "a.jpg": data(one.resize((320, 240))),
        "much longer name.jpg": data(one),
        "b.jpg": data(two, quality=80),
        "sent later.jpg": data(two, quality=70, exif=exif()),
        "c.jpg": data(photo(3)),
    }
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    assert {kept.name for kept in photos.photos} == {"much longer name.jpg", "sent later.jpg", "c.jpg"}


def test_a_burst_from_a_tripod_is_one_picture_and_one_by_hand_is_not(tmp_path: Path) -> None:
    still = {f"still{n}.jpg": data(photo(1, 60 + 1e-3 * n)) for n in range(3)}  # other noise, the same place
    by_hand = {f"hand{n}.jpg": data(photo(2, 60 + 4 * n)) for n in range(4)}
    photos = run(folder_of(tmp_path / "in", {**still, **by_hand}), tmp_path / "out")
    assert [kept.name for kept in photos.photos] == ["hand0.jpg", "hand1.jpg", "hand2.jpg", "hand3.jpg", "still0.jpg"]


MOVES = {
    "0.3 % to the side": {"x": 62.0},
    "0.5 % down": {"y": 62.4},
    "0.6 % nearer": {"zoom": 0.994, "x": 61.9, "y": 61.4},
    "two thirds overlap": {"x": 100.0},
}


@pytest.mark.parametrize("move", MOVES)
def test_frames_of_a_slow_video_and_overlapping_photos_are_no_copies(move: str) -> None:
    first, second = thumbnail(photo(1)), thumbnail(photo(1, **MOVES[move]))
    assert not same_picture(first, second)
    assert not same_picture(second, first)


def test_parts_that_move_before_a_still_title_are_no_copies() -> None:
    """Burnt-in bars and titles are equal in all frames of a video."""
    frames = [photo(1), photo(1, 64.0)]
    for frame in frames:
        for box in ((0, 0, 640, 90), (0, 400, 640, 480)):
            frame.paste(photo(9).crop(box), box)
    assert not same_picture(*map(thumbnail, frames))


def test_pictures_with_too_little_texture_are_never_copies() -> None:
    sky = [Image.fromarray(np.full((480, 640), level, np.uint8)) for level in (200, 201)]
    assert not same_picture(*map(thumbnail, sky))
    assert alike([]) == []


def test_a_thumbnail_is_the_same_at_any_size_of_the_decoded_jpeg() -> None:
    """libjpeg's small picture is rounded up: its last column reaches beyond the photo."""
    whole = photo(1).crop((0, 0, 633, 470))
    opened = Image.open(io.BytesIO(data(whole, quality=95)))
    drafted = opened.draft("L", (79, 58))
    assert drafted is not None
    opened.load()
    assert opened.width * 8 > 633
    difference = thumbnail(opened, drafted[1]).astype(int) - thumbnail(whole).astype(int)
    assert np.abs(difference).mean() < 2  # levels; 5 without the part


@pytest.mark.data
@pytest.mark.parametrize("name", ["brighton_beach", "sceaux_castle", "fox/images"])
def test_no_photo_of_the_real_sets_is_a_copy(name: str) -> None:
    small = []
    for path in sorted((PHOTO_SETS / name).iterdir()):
        if path.suffix.lower() == ".jpg":
            image = Image.open(path)
            drafted = image.draft("L", (image.width // 8, image.height // 8))
            image.load()
            small.append(thumbnail(image, drafted and drafted[1]))
    pairs = [(one, other) for number, one in enumerate(small) for other in small[:number]]
    assert not [pair for pair in pairs if same_picture(*pair)]
