"""EXIF is believed as far as lenses and the Earth allow."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from tasks.core.photos.exif import read_exif
from tests.core.photos.test_ingest import HEIGHT, WIDTH, picture

DIAGONAL_PX = float(np.hypot(WIDTH, HEIGHT))
NORMAL: dict[int, object] = {
    Base.FocalLength: 35.0,
    Base.FocalPlaneXResolution: WIDTH / 3.6,
    Base.FocalPlaneResolutionUnit: 3,
}


def opened(exif: Image.Exif) -> Image.Image:
    buffer = io.BytesIO()
    picture(1).save(buffer, "JPEG", exif=exif)
    return Image.open(buffer)


def of_lens(tags: dict[int, object]) -> Image.Image:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif).update(tags)
    return opened(exif)


@pytest.mark.parametrize(
    ("mm", "doubted"), [(1, True), (4, True), (5, False), (1500, False), (1501, True), (65535, True)]
)
def test_focal_lengths_that_no_lens_has_do_not_count(mm: int, doubted: bool) -> None:
    facts = read_exif(of_lens({Base.FocalLengthIn35mmFilm: mm}))
    assert facts.focal_doubted is doubted
    expected = None if doubted else pytest.approx(mm / np.hypot(36, 24) * DIAGONAL_PX)
    assert facts.focal_px == expected


def test_a_focal_length_that_is_not_known_is_not_doubted() -> None:
    facts = read_exif(of_lens({Base.FocalLengthIn35mmFilm: 0}))
    assert (facts.focal_px, facts.focal_doubted) == (None, False)


def test_the_sensors_focal_length_counts_beside_an_absurd_equivalent() -> None:
    facts = read_exif(of_lens({Base.FocalLengthIn35mmFilm: 65535, **NORMAL}))
    assert facts.focal_px == pytest.approx(35 / 36 * WIDTH)
    assert facts.focal_doubted


@pytest.mark.parametrize(
    "absurd", [{Base.FocalLength: 1e6}, {Base.FocalPlaneXResolution: 1e-3}, {Base.FocalLength: 1e-3}]
)
def test_a_sensor_that_is_absurd_does_not_count(absurd: dict[int, object]) -> None:
    facts = read_exif(of_lens({**NORMAL, **absurd}))
    assert (facts.focal_px, facts.focal_doubted) == (None, True)


@pytest.mark.parametrize(
    ("altitude_m", "below", "read"),
    [(0.0, False, 0.0), (430.0, True, -430.0), (501.0, True, None), (20_000.0, False, 20_000.0), (4e9, False, None)],
)
def test_altitudes_where_nothing_flies_do_not_count(altitude_m: float, below: bool, read: float | None) -> None:
    exif = Image.Exif()
    exif.get_ifd(IFD.GPSInfo).update(
        {
            GPS.GPSLatitudeRef: "N",
            GPS.GPSLatitude: (46.0, 30.0, 0.0),
            GPS.GPSLongitudeRef: "E",
            GPS.GPSLongitude: (7.0, 15.0, 0.0),
            GPS.GPSAltitudeRef: b"\x01" if below else b"\x00",
            GPS.GPSAltitude: altitude_m,
        }
    )
    gps = read_exif(opened(exif)).gps
    assert gps is not None
    assert (gps.latitude_deg, gps.longitude_deg, gps.altitude_m) == (46.5, 7.25, read)
