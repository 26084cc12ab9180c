"""Overlays: what every photo of a camera shows at the same place is found, and nothing else is taken for it."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tasks.core.photoset import IMAGES_FOLDER, Photo
from tasks.core.sfm import features
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.overlay import FEWEST_PHOTOS, FrameChanges, Mask, covers

WIDTH, HEIGHT, COUNT = 640, 480, 12
Draw = Callable[[ImageDraw.ImageDraw, int], None]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def place(seed: int) -> Image.Image:
    """A photo of somewhere: blurred noise of many sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (n, n, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT)), float)
        for n in (4, 12, 40, 120)
    ]
    return Image.fromarray(np.clip(np.mean(layers, axis=0) * 2 - 128, 0, 255).astype(np.uint8))


def title(draw: ImageDraw.ImageDraw, _: int) -> None:
    draw.text((20, 20), "CAM 01 AERIAL SURVEY", font=ImageFont.load_default(size=36), fill=WHITE)


def bars(draw: ImageDraw.ImageDraw, _: int) -> None:
    draw.rectangle((0, 0, WIDTH, 50), fill=BLACK)
    draw.rectangle((0, HEIGHT - 50, WIDTH, HEIGHT), fill=BLACK)


def frame_of_bars(draw: ImageDraw.ImageDraw, i: int) -> None:
    bars(draw, i)
    draw.rectangle((0, 0, 60, HEIGHT), fill=BLACK)
    draw.rectangle((WIDTH - 60, 0, WIDTH, HEIGHT), fill=BLACK)


def bonnet(draw: ImageDraw.ImageDraw, _: int) -> None:
    draw.ellipse((-100, HEIGHT - 90, WIDTH + 100, HEIGHT + 300), fill=(60, 20, 20))


def legs(draw: ImageDraw.ImageDraw, _: int) -> None:
    draw.polygon([(0, 0), (70, 0), (0, 200)], fill=(35, 35, 38))
    draw.polygon([(WIDTH, 0), (WIDTH - 70, 0), (WIDTH, 200)], fill=(35, 35, 38))


def clock(draw: ImageDraw.ImageDraw, i: int) -> None:
    draw.rectangle((0, HEIGHT - 50, WIDTH, HEIGHT), fill=BLACK)
    draw.text((20, HEIGHT - 45), f"12:00:{i:02d}  H {40 + i}.0m", font=ImageFont.load_default(size=36), fill=WHITE)


def changes(photos: list[Image.Image]) -> FrameChanges:
    made = FrameChanges()
    for photo in photos:
        made.add(np.asarray(photo.convert("L")))
    return made


def noisy(photo: Image.Image, seed: int) -> Image.Image:
    noise = np.random.default_rng(1000 + seed).normal(0, 2, (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.clip(np.asarray(photo, float) + noise, 0, 255).astype(np.uint8))


def drawn(draw: Draw, count: int = COUNT) -> list[Image.Image]:
    photos = []
    for i in range(count):
        photo = place(i)
        draw(ImageDraw.Draw(photo), i)
        photos.append(noisy(photo, i))
    return photos


def truth(draw: Draw) -> NDArray[np.bool_]:
    """Pixels that the drawing paints in the first photo."""
    painted = []
    for colour in (WHITE, BLACK, (0, 255, 0)):
        plain = Image.new("RGB", (WIDTH, HEIGHT), colour)
        draw(ImageDraw.Draw(plain), 0)
        painted.append((np.asarray(plain) != colour).any(axis=2))
    return np.asarray(np.any(painted, axis=0))


@pytest.mark.parametrize("draw", [title, bars, frame_of_bars, bonnet, legs, clock])
def test_what_is_fixed_to_the_camera_is_found(draw: Draw) -> None:
    found, wanted = changes(drawn(draw)).unchanging(), truth(draw)
    assert found is not None
    assert found[wanted].mean() > 0.97
    near = np.asarray(Image.fromarray(wanted).convert("L").filter(ImageFilter.MaxFilter(15))) > 0
    assert found[~near].mean() < 0.001


def sky(i: int) -> Image.Image:
    """Blown out above a skyline that wanders."""
    pixels = np.array(place(i))
    skyline = 150 + 60 * np.sin(np.arange(WIDTH) / 90 + i) + 10 * (i % 5)
    pixels[np.arange(HEIGHT)[:, None] < skyline] = 255
    return Image.fromarray(pixels)


def night(i: int) -> Image.Image:
    """Black but for a few lamps."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rng = np.random.default_rng(i)
    for x, y in zip(rng.integers(20, WIDTH - 20, 40), rng.integers(200, HEIGHT - 20, 40), strict=True):
        pixels[y : y + 12, x : x + 12] = 240
    return noisy(Image.fromarray(pixels), i)


def snow(i: int) -> Image.Image:
    """White with faint ripples in its lower half, and trees above."""
    pixels = np.array(place(i), float)
    edge = HEIGHT // 2 + 30 * np.sin(np.arange(WIDTH) / 70 + i)
    lower = np.arange(HEIGHT)[:, None] > edge
    pixels[lower] = 235 + 0.03 * (pixels[lower] - 128)
    return noisy(Image.fromarray(pixels.astype(np.uint8)), i)


@pytest.mark.parametrize("photo", [place, sky, night, snow, lambda _: noisy(place(0), 0)])
def test_what_belongs_to_the_place_stays(photo: Callable[[int], Image.Image]) -> None:
    assert changes([photo(i) for i in range(COUNT)]).unchanging() is None


def test_few_photos_are_alike_by_chance() -> None:
    assert changes(drawn(title, FEWEST_PHOTOS - 1)).unchanging() is None
    assert changes(drawn(title, FEWEST_PHOTOS)).unchanging() is not None


def test_positions_in_a_photo_are_those_of_its_small_copy() -> None:
    mask: Mask = np.zeros((30, 40), bool)
    mask[10:20, 5:8] = True
    xy = np.array([[5.5, 15.5], [4.5, 15.5], [7.9, 19.9], [39.9, 29.9]]) * 4
    assert covers(mask, xy, 160, 120).tolist() == [True, False, True, False]


def test_features_leave_it_out_also_when_a_later_run_takes_them(tmp_path: Path) -> None:
    (tmp_path / IMAGES_FOLDER).mkdir()
    names = [f"{i}.png" for i in range(FEWEST_PHOTOS + 1)]
    for name, photo in zip(names, drawn(title, len(names)), strict=True):
        photo.save(tmp_path / IMAGES_FOLDER / name)
    place(99).resize((320, 240)).save(tmp_path / IMAGES_FOLDER / "other.png")
    photos = tuple(Photo(name=name, width=WIDTH, height=HEIGHT, sha256="") for name in names)
    other = Photo(name="other.png", width=320, height=240, sha256="")
    made = FeatureDatabase(tmp_path / "first", tmp_path, (*photos, other), SfmOptions(max_features=1000))
    made.add_cameras()
    made.extract()
    mask = made.overlay_of(photos[0])
    assert mask is not None
    assert made.overlay_of(other) is None
    with pycolmap.Database.open(made.path) as database:
        for image in database.read_all_images():
            places = np.asarray(database.read_keypoints(image.image_id))
            assert len(places) == len(np.asarray(database.read_descriptors(image.image_id).data)) > 100
            if image.name != made.names[-1]:
                assert not covers(mask, places[:, :2], WIDTH, HEIGHT).any()
    made.snapshot(tmp_path / "kept.db")
    later = FeatureDatabase(tmp_path / "later", tmp_path, (*photos, other), SfmOptions(max_features=1000))
    assert later.restore(tmp_path / "kept.db")
    again = later.overlay_of(photos[0])
    assert again is not None
    assert np.array_equal(again, mask)


def test_features_found_so_far_lead_to_the_same_as_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended after the second of five blocks: the next run looks for features in the other photos only."""
    monkeypatch.setattr(features, "GREY_AT_ONCE", 2)
    (tmp_path / IMAGES_FOLDER).mkdir()
    names = [f"{i}.png" for i in range(FEWEST_PHOTOS + 2)]
    for name, photo in zip(names, drawn(title, len(names)), strict=True):
        photo.save(tmp_path / IMAGES_FOLDER / name)
    photos = tuple(Photo(name=name, width=WIDTH, height=HEIGHT, sha256="") for name in names)

    def database(folder: str) -> FeatureDatabase:
        return FeatureDatabase(tmp_path / folder, tmp_path, photos, SfmOptions(max_features=500))

    whole = database("whole")
    whole.add_cameras()
    whole.extract()

    begun, asked = database("begun"), []
    begun.add_cameras()
    extract = FeatureDatabase._extract_some

    def until_the_third(self: FeatureDatabase, numbers: range, *more: object) -> None:
        asked.append(numbers)
        if len(asked) == 3:
            raise KeyboardInterrupt
        extract(self, numbers, *more)

    monkeypatch.setattr(FeatureDatabase, "_extract_some", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        begun.extract(kept=tmp_path / "kept.db")
    later = database("later")
    assert later.restore(tmp_path / "kept.db")
    later.extract(kept=tmp_path / "kept.db")
    assert asked == [range(2), range(2, 4), range(4, 6), range(4, 6), range(6, 8), range(8, 10)]
    assert later.overlay_of(photos[0]) is not None
    assert np.array_equal(later.overlay_of(photos[0]), whole.overlay_of(photos[0]))
    tables = ("cameras", "images", "keypoints", "descriptors", "unchanging")
    for table in tables:
        one, other = (sorted(rows_of(made.path, table)) for made in (whole, later))
        assert one == other, table
    assert later.restore(tmp_path / "kept.db")
    later.extract()
    assert len(asked) == 6, "nothing is looked for again"


def rows_of(database: Path, table: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(f"select * from {table}").fetchall()
