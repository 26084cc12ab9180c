"""Facts of a drone's XMP: exact positions and the gimbal's angles."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.ExifTags import GPS, IFD
from scipy.spatial.transform import Rotation

from tasks.core.photos.exif import read_exif
from tasks.core.photos.xmp import read_xmp, up_in_camera
from tests.core.photos.test_ingest import picture

ATTRIBUTES = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description rdf:about="DJI Meta Data" {0}/></x:xmpmeta>"""
ELEMENTS = """<x:xmpmeta><rdf:Description>{0}</rdf:Description></x:xmpmeta>"""
TAGS = {
    "drone-dji:GpsLatitude": "+46.84260708",
    "drone-dji:GpsLongtitude": "-91.99455989",
    "drone-dji:AbsoluteAltitude": "+198.31",
    "drone-dji:GimbalPitchDegree": "-89.90",
    "drone-dji:GimbalRollDegree": "+0.00",
}


def attributes(tags: dict[str, str]) -> bytes:
    return ATTRIBUTES.format(" ".join(f'{name}="{value}"' for name, value in tags.items())).encode()


def elements(tags: dict[str, str]) -> bytes:
    return ELEMENTS.format("".join(f"<{name}>{value}</{name}>" for name, value in tags.items())).encode()


def opened(packet: bytes, exif: Image.Exif | None = None, kind: str = "JPEG") -> Image.Image:
    buffer = io.BytesIO()
    picture(1).save(buffer, kind, xmp=packet, exif=Image.Exif() if exif is None else exif)
    return Image.open(buffer)


def position(latitude: tuple[float, float, float], longitude: tuple[float, float, float], *letters: str) -> Image.Exif:
    exif = Image.Exif()
    tags = exif.get_ifd(IFD.GPSInfo)
    tags[GPS.GPSLatitude], tags[GPS.GPSLongitude] = latitude, longitude
    if letters:
        tags[GPS.GPSLatitudeRef], tags[GPS.GPSLongitudeRef] = letters
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("packet", [attributes(TAGS), elements(TAGS)])
def test_values_are_read_from_attributes_and_elements(packet: bytes, kind: str) -> None:
    facts = read_xmp(opened(packet, kind=kind))
    assert (facts.latitude_deg, facts.longitude_deg, facts.altitude_m) == (46.84260708, -91.99455989, 198.31)
    assert (facts.gimbal_pitch_deg, facts.gimbal_roll_deg) == (-89.9, 0.0)


@pytest.mark.parametrize("value", ["", "nan", "inf", "1e400", "<b>", "12,5", "181", "-" * 50])
def test_a_value_that_is_none_does_not_count(value: str) -> None:
    assert read_xmp(opened(attributes(TAGS | {"drone-dji:GimbalPitchDegree": value}))).gimbal_pitch_deg is None


def test_seconds_that_exif_has_cut_come_from_the_xmp() -> None:
    """Positions cut to whole seconds err by 30 m, and the flight was not georeferenced."""
    facts = read_exif(opened(attributes(TAGS), position((46, 50, 33), (91, 59, 40), "N", "W")))
    assert facts.gps is not None
    assert (facts.gps.latitude_deg, facts.gps.longitude_deg) == (46.84260708, -91.99455989)
    assert facts.gps.altitude_m == 198.31


def test_a_place_that_somebody_has_entered_stays() -> None:
    facts = read_exif(opened(attributes(TAGS), position((47, 0, 0), (91, 59, 40), "N", "W")))
    assert facts.gps is not None
    assert facts.gps.latitude_deg == 47


def test_missing_letters_are_remembered_and_the_xmp_has_them() -> None:
    place = position((46, 50, 33), (91, 59, 40))
    alone = read_exif(opened(b"", place)).gps
    assert alone is not None
    assert (alone.hemisphere_assumed, round(alone.longitude_deg)) == (True, 92)
    both = read_exif(opened(attributes(TAGS), place)).gps
    assert both is not None
    assert (both.hemisphere_assumed, both.longitude_deg) == (False, -91.99455989)


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(0, 0, 0), (30, -90, 0), (-70, -45, 5), (120, 10, -90), (5, -89.9, 180)]
)
def test_up_is_that_of_the_gimbals_turns(yaw: float, pitch: float, roll: float) -> None:
    body_in_ned = Rotation.from_euler("ZYX", [yaw, pitch, roll], degrees=True)  # forward, right, down of the camera
    forward, right, down = body_in_ned.inv().apply([0.0, 0, -1])  # the sky
    np.testing.assert_allclose(up_in_camera(pitch, roll, 1), [right, down, forward], atol=1e-12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_up_turns_with_the_photo(orientation: int) -> None:
    """A picture with one bright pixel up of its middle shows where up is when it is upright."""
    stored = Image.new("L", (5, 5))
    stored.putpixel((2, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    [[row, column]] = np.argwhere(upright == 255)
    x, y, z = up_in_camera(0.0, 0.0, orientation)
    np.testing.assert_allclose([x, y, z], [(column - 2) / 2, (row - 2) / 2, 0], atol=1e-12)
