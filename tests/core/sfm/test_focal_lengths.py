"""A focal length that no lens has leaves the cameras of photos without EXIF."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import PhotoSet
from tasks.core.progress import ignore_progress
from tasks.core.sfm import doubts
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.options import SfmOptions

SIZE = (96, 72)
Cameras = list[tuple[str, list[float], bool]]


def photo_set(folder: Path, lenses: list[dict[int, object]]) -> PhotoSet:
    (folder / "in").mkdir(parents=True)
    for i, lens in enumerate(lenses):
        exif = Image.Exif()
        exif.get_ifd(IFD.Exif).update(lens)
        pixels = np.random.default_rng(i).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"in/{i}.jpg", exif=exif)
    return ingest(folder / "in", folder / "photos", PhotosOptions(), ignore_progress).photo_set


def cameras_of(folder: Path, photos: PhotoSet) -> Cameras:
    database = FeatureDatabase(folder / "work", folder / "photos", photos.photos, SfmOptions())
    database.add_cameras()
    with pycolmap.Database.open(database.path) as stored:
        return [(c.model_name, list(c.params), c.has_prior_focal_length) for c in stored.read_all_cameras()]


def shot(folder: Path, lenses: list[dict[int, object]]) -> Cameras:
    return cameras_of(folder, photo_set(folder, lenses))


@pytest.mark.parametrize("mm", [1, 4, 1501, 65535])
def test_an_absurd_equivalent_changes_no_camera(mm: int, tmp_path: Path) -> None:
    """pycolmap reads EXIF for itself: with 65535 mm, 0 of 14 photos were placed."""
    absurd: dict[int, object] = {Base.FocalLengthIn35mmFilm: mm}
    without = shot(tmp_path / "without", [{}] * 3)
    assert shot(tmp_path / "all", [absurd] * 3) == without
    assert shot(tmp_path / "one", [absurd, {}, {}]) == without
    assert [prior for *_, prior in without] == [False]


def test_a_focal_length_of_a_lens_is_where_the_search_begins(tmp_path: Path) -> None:
    [(_, parameters, prior)] = shot(tmp_path, [{Base.FocalLengthIn35mmFilm: 24}] * 3)
    assert prior
    assert parameters[0] == pytest.approx(24 / np.hypot(36, 24) * np.hypot(*SIZE), rel=1e-3)  # COLMAP rounds 43.27


def test_an_absurd_equivalent_beside_a_good_sensor_counts_as_none(tmp_path: Path) -> None:
    sensor = {Base.FocalLength: 35.0, Base.FocalPlaneXResolution: SIZE[0] / 3.6, Base.FocalPlaneResolutionUnit: 3}
    without = shot(tmp_path / "without", [{**sensor}] * 3)
    assert shot(tmp_path / "with", [{**sensor, Base.FocalLengthIn35mmFilm: 65535}] * 3) == without


def test_what_only_pycolmap_can_read_is_not_believed_either(tmp_path: Path) -> None:
    read = photo_set(tmp_path, [{Base.FocalLengthIn35mmFilm: 65535}] * 3)
    unread = PhotoSet(photos=tuple(photo.model_copy(update={"focal_doubted": False}) for photo in read.photos))
    assert [prior for *_, prior in cameras_of(tmp_path, unread)] == [False]


def test_the_report_says_how_many_are_not_believed(tmp_path: Path) -> None:
    absurd: dict[int, object] = {Base.FocalLengthIn35mmFilm: 65535}
    [said] = doubts.of_exif(photo_set(tmp_path / "a", [absurd, absurd, {}]))
    assert said.startswith("The focal length in EXIF of 2 of 3 photos is not believed")
    assert doubts.of_exif(photo_set(tmp_path / "b", [{}] * 3)) == ()


def test_photos_at_two_digital_zooms_have_two_cameras(tmp_path: Path) -> None:
    """One camera for both tilted the scene by 12°, with 8.45 m rms against GPS instead of 0.44 m."""
    lens: dict[int, object] = {Base.FocalLengthIn35mmFilm: 24}
    plain, zoomed = sorted(shot(tmp_path, [lens, {**lens, Base.DigitalZoomRatio: 1.6}, lens]))
    assert plain[1][0] == pytest.approx(24 / np.hypot(36, 24) * np.hypot(*SIZE), rel=1e-3)
    assert zoomed[1][0] == pytest.approx(1.6 * plain[1][0], rel=1e-3)


def test_a_crop_has_the_focal_length_of_the_whole_photo(tmp_path: Path) -> None:
    """EXIF's 35 mm equivalent is of the whole photo, and a crop does not change the size of a pixel."""
    (tmp_path / "in").mkdir()
    sizes = [(192, 144), (160, 120), (180, 100), (150, 140), (170, 130)]
    for i, size in enumerate(sizes):
        exif = Image.Exif()
        exif[Base.Make], exif[Base.Model] = "DJI", "FC300S"
        exif.get_ifd(IFD.Exif).update({Base.FocalLengthIn35mmFilm: 24})
        pixels = np.random.default_rng(i).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"in/{i}.jpg", exif=exif)
    photos = ingest(tmp_path / "in", tmp_path / "photos", PhotosOptions(), ignore_progress).photo_set
    whole_px = 24 / np.hypot(36, 24) * np.hypot(*sizes[0])
    found = cameras_of(tmp_path, photos)
    assert len(found) == len(sizes)
    assert [parameters[0] for _, parameters, _ in found] == pytest.approx([whole_px] * len(sizes), rel=1e-3)
