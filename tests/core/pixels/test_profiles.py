"""Colours of pictures that are not in sRGB, against Pillow's own conversion and against numbers of the standards."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from tasks.core.image_file import open_image
from tasks.core.photos import pixels  # noqa: F401 - teaches Pillow to open HEIC
from tasks.core.pixels import icc
from tasks.core.pixels.plain import kind_of, plain
from tasks.core.pixels.profiles import SRGB, find_colours

SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# A picture of eight colours that all of the spaces have.
COLOURS = np.array(
    [
        *[(200, 90, 60), (60, 160, 90), (70, 90, 190), (128, 128, 128)],
        *[(230, 220, 200), (40, 30, 50), (180, 180, 60), (9, 9, 9)],
    ],
    np.uint8,
)


def patches() -> Image.Image:
    return Image.fromarray(np.repeat(COLOURS.reshape(2, 4, 3), 16, axis=0).repeat(16, axis=1))


def in_space(profile: bytes) -> Image.Image:
    """The patches' colours as levels of another space."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    made = ImageCms.profileToProfile(patches(), ImageCms.createProfile("sRGB"), target)
    assert made is not None
    made.info.clear()
    return made


def stored(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return open_image(buffer)


def error_levels(opened: Image.Image) -> float:
    """The greatest mean error of a patch."""
    kind = kind_of(opened)
    opened.load()
    made, _ = plain(opened, kind)
    assert not {"icc_profile", "gamma"} & made.info.keys(), "it would be stored and applied again"
    seen = np.asarray(made.convert("RGB"), float).reshape(2, 16, 4, 16, 3)[:, 4:12, :, 4:12].mean(axis=(1, 3))
    return float(np.abs(seen.reshape(8, 3) - COLOURS).max())


def rec2020() -> bytes:
    return icc.colour_space("Rec. 2020", icc.REC2020, icc.srgb_curve).profile


SPACES = {"P3": icc.display_p3().profile, "Adobe RGB": icc.adobe_rgb().profile, "Rec. 2020": rec2020()}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
@pytest.mark.parametrize("space", SPACES)
def test_an_embedded_profile_counts_in_every_format(space: str, kind: str) -> None:
    lossless = {"quality": 100} if kind in ("JPEG", "WEBP", "HEIF", "AVIF") else {}
    if kind == "JPEG":
        lossless["subsampling"] = 0
    opened = stored(in_space(SPACES[space]), kind, icc_profile=SPACES[space], **lossless)
    assert find_colours(opened).profile is not None
    # levels of 255: a level of a wide space is more than one of sRGB in the dark, and codecs add as much; a profile
    # that is ignored costs 20 and more
    assert error_levels(opened) < 8


def test_the_written_profiles_are_the_spaces_that_they_are_called() -> None:
    """Pure colours of sRGB in Display P3 and Adobe RGB, as colour pickers and the standards give them."""
    expected = {
        icc.display_p3().profile: {(255, 0, 0): (234, 51, 35), (0, 255, 0): (117, 251, 76), (0, 0, 255): (0, 0, 245)},
        icc.adobe_rgb().profile: {(255, 0, 0): (219, 0, 0), (0, 255, 0): (144, 255, 60), (0, 0, 255): (0, 0, 250)},
    }
    for profile, colours in expected.items():
        target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), target, "RGB", "RGB")
        for rgb, there in colours.items():
            found = ImageCms.applyTransform(Image.new("RGB", (1, 1), rgb), transform)
            assert found is not None
            assert np.abs(np.subtract(found.getpixel((0, 0)), there)).max() <= 2, (rgb, found.getpixel((0, 0)))


def test_srgb_by_any_profile_stays_as_it_is() -> None:
    own = icc.colour_space("mine", icc.REC709, icc.srgb_curve).profile
    for profile in (SRGB_PROFILE, own):
        assert find_colours(stored(patches(), "JPEG", icc_profile=profile)) == SRGB
    assert find_colours(stored(patches(), "JPEG")) == SRGB


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profiles_count(mode: str) -> None:
    linear = icc.colour_space("linear", icc.REC709, icc.gamma_curve(1.0)).profile
    image = Image.new("L", (64, 64), 55).convert(mode)
    made, _ = plain(image, kind_of(stored(image, "PNG", icc_profile=linear)))
    # a light of 55 / 255 is level 128 of sRGB
    assert (made.mode, made.getextrema()) == ("L", (128, 128))


def test_cmyk_with_a_profile_is_not_taken_for_rgb_and_a_profile_of_another_kind_is_ignored_with_a_note() -> None:
    opened = stored(patches().convert("CMYK"), "JPEG", icc_profile=icc.display_p3().profile, quality=100)
    colours = find_colours(opened)
    assert colours.profile is None
    assert colours.fault == "it is for RGB and not for CMYK"
    assert error_levels(opened) < 5


@pytest.mark.parametrize(
    "damaged",
    [b"\0", b"no profile" * 30, icc.display_p3().profile[:200], icc.display_p3().profile.replace(b"rXYZ", b"xxxx")],
    ids=["a byte", "text", "cut off", "without red"],
)
def test_a_damaged_profile_is_ignored_with_a_note(damaged: bytes) -> None:
    opened = stored(patches(), "PNG", icc_profile=damaged)
    colours = find_colours(opened)
    assert colours.profile is None
    assert colours.fault
    assert error_levels(opened) == 0


@pytest.mark.parametrize("damage", range(60))
def test_whatever_is_damaged_in_a_profile_nothing_breaks(damage: int) -> None:
    content, rng = bytearray(icc.adobe_rgb().profile), np.random.default_rng(damage)
    for place in rng.integers(0, 330, 6):
        content[place] = rng.integers(256)
    opened = stored(patches(), "PNG", icc_profile=bytes(content))
    kind = kind_of(opened)
    made, _ = plain(opened, kind)
    assert made.size == patches().size


@pytest.mark.parametrize(
    ("space", "index", "converted"), [(65535, "R03", True), (2, None, True), (1, "R98", False), (65535, None, False)]
)
def test_adobe_rgb_by_exif_alone(space: int, index: str | None, converted: bool) -> None:
    block = Image.Exif()
    block.get_ifd(IFD.Exif)[Base.ColorSpace] = space
    if index:
        block.get_ifd(IFD.Exif)[IFD.Interop] = {1: index}
    opened = stored(in_space(SPACES["Adobe RGB"]), "JPEG", quality=100, subsampling=0, exif=block)
    assert (find_colours(opened).name == "Adobe RGB (1998)") == converted
    assert (error_levels(opened) < 5) == converted


@pytest.mark.parametrize(("primaries", "transfer", "name"), [(12, 13, "Display P3"), (9, 16, "Rec. 2020 PQ")])
def test_colours_that_heic_names_without_a_profile(primaries: int, transfer: int, name: str) -> None:
    opened = stored(
        in_space(SPACES["P3"]), "HEIF", quality=100, color_primaries=primaries, transfer_characteristics=transfer
    )
    assert find_colours(opened).name == name
    if transfer == 13:
        assert error_levels(opened) < 5


def test_primaries_and_gamma_of_a_png() -> None:
    opened = stored(patches(), "PNG")
    opened.info.update(gamma=0.45455, chromaticity=(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06))
    assert find_colours(opened) == SRGB
    opened.info["gamma"] = 1.0
    assert find_colours(opened).name == "a PNG's own primaries and gamma"
    for odd in (0.0, 1e9, float("nan")):
        opened.info["gamma"] = odd
        assert find_colours(opened) == SRGB
    opened.info.update(gamma=0.45455, chromaticity=(0.0,) * 8)
    assert find_colours(opened) == SRGB


def test_white_of_bright_spaces_is_white() -> None:
    """The reference white of ITU-R BT.2408: levels of 58 % in PQ and 75 % in HLG."""
    assert icc.pq_curve(np.array([0.0, 0.5806, 1.0])) == pytest.approx([0, 1, 1], abs=5e-3)
    assert icc.hlg_curve(np.array([0.0, 0.75, 1.0])) == pytest.approx([0, 1, 1], abs=1e-3)
