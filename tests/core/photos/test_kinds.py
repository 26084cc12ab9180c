"""Photos whose pixels are not plain: other colours, more than 8 bits, transparency. A whole set at a time."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tasks.core.photos import ingest as ingest_module
from tasks.core.photos.options import PhotosOptions
from tasks.core.pixels import icc
from tests.core.photos.test_ingest import encoded, exif, folder_of, picture, run, three, zip_of
from tests.core.pixels.test_levels import scene


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(out: Path, name: str) -> np.ndarray:
    with Image.open(out / "images" / name) as image:
        assert image.mode in ("L", "RGB")
        assert "icc_profile" not in image.info
        return np.asarray(image, float)


def in_space(image: Image.Image, space: icc.ColourSpace) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(space.profile))
    made = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), profile)
    assert made is not None
    return made


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("space", [icc.display_p3(), icc.adobe_rgb()], ids=lambda space: space.name)
def test_a_wide_gamut_becomes_srgb(space: icc.ColourSpace, orientation: int, tmp_path: Path) -> None:
    muted = [Image.blend(picture(seed), Image.new("RGB", (96, 72), "grey"), 0.5) for seed in range(3)]
    files = {}
    for seed, (kind, suffix) in enumerate((("HEIF", "heic"), ("JPEG", "jpg"), ("PNG", "png"))):
        options = {"exif": exif(orientation=orientation)} if kind == "JPEG" else {}
        if kind != "PNG":
            options["quality"] = 98
        files[f"{seed}.{suffix}"] = stored(in_space(muted[seed], space), kind, icc_profile=space.profile, **options)
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    for seed, image in enumerate(muted):
        image = image.transpose(Image.Transpose.ROTATE_270) if seed == 1 and orientation == 6 else image
        expected = np.asarray(image, float)
        found = pixels(tmp_path / "out", f"{seed}.jpg")
        # Levels of 255: two codecs and the levels of a wide space; with the profile ignored 5 and more.
        assert np.abs(found - expected).mean() < 2.5
        assert np.ptp(found, axis=2).mean() == pytest.approx(np.ptp(expected, axis=2).mean(), rel=0.03)  # saturation
    assert photos.notes == (f"3 photos in colours of {space.name} were converted to sRGB.",)


def test_upright_jpegs_of_srgb_stay_byte_for_byte_also_with_a_profile(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    damaged = encoded(4, icc_profile=profile[:300])
    files = {
        "a.jpg": encoded(1, icc_profile=profile),
        "b.jpg": damaged,
        "c.JPG": encoded(2),
        "d.png": encoded(3, "PNG"),
    }
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    assert {name: (tmp_path / "out/images" / name).read_bytes() for name in files} == files
    [note] = photos.notes
    assert note.startswith("The colour profile of 1 photo cannot be used (")
    assert note.endswith("so the levels are taken as sRGB: b.jpg.")


def deep_set(low: float, span: float, kind: str) -> dict[str, bytes]:
    """Three photos of a place with one range, of which each has its own part, and one photo that is nearly even."""
    parts = [scene(1), scene(2, 0.0, 0.3), scene(3, 0.6, 1.0), scene(4, 0.50, 0.53)]
    pictures = [Image.fromarray(np.rint(low + span * part).astype(np.uint16)) for part in parts]
    suffix = {"TIFF": "tif", "PNG": "png"}[kind]
    return {f"{number}.{suffix}": stored(image, kind) for number, image in enumerate(pictures)}


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_temperatures_of_a_set_have_one_range_and_are_told_from_blank_by_it(kind: str, tmp_path: Path) -> None:
    files = deep_set(7000, 1500, kind)
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    assert [photo.name for photo in photos.photos] == [f"{number}.jpg" for number in range(4)]
    means = [pixels(tmp_path / "out", f"{number}.jpg").mean() for number in range(4)]
    parts = [scene(1), scene(2, 0.0, 0.3), scene(3, 0.6, 1.0), scene(4, 0.50, 0.53)]
    black, white = np.quantile(parts, [0.001, 0.999])
    assert means == pytest.approx([255 * (part.mean() - black) / (white - black) for part in parts], abs=1.5)  # levels
    assert "4 photos of more than 8 bits were scaled alike: levels from 7,0" in photos.notes[0]


def test_twelve_bits_in_sixteen_are_as_bright_as_they_were(tmp_path: Path) -> None:
    run(folder_of(tmp_path / "in", deep_set(0, 4095, "PNG")), tmp_path / "out")
    found = pixels(tmp_path / "out", "0.jpg")
    assert np.abs(found - 255 * scene(1)).mean() < 1.5  # levels of 255: JPEG


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of 16-bit red, green and blue (and alpha), which Pillow does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.rint(values).astype(">u2"))
    head = struct.pack(">2I5B", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_of_16_bits(values: np.ndarray, order: str, packed: bool = False) -> bytes:
    """A TIFF of 16-bit red, green and blue, in either order of bytes, as it is or deflated (which libtiff reads)."""
    height, width, _ = values.shape
    pixels = np.rint(values).astype(f"{order}u2").tobytes()
    if packed:
        pixels = zlib.compress(pixels)
        pixels += bytes(len(pixels) % 2)
    sizes = struct.pack(f"{order}3H", 16, 16, 16)
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, 8),
        (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, 2),
        (273, 4, 1, 14),
    ]
    entries += [(277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 14 + len(pixels)) + sizes
    table = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        table += struct.pack(f"{order}HHI", tag, kind, count) + struct.pack(
            f"{order}HH" if short else f"{order}I", *((value, 0) if short else (value,))
        )
    return head + pixels + table + bytes(4)


def colour(seed: int) -> np.ndarray:
    """Levels [96, 128, 3] in 0..1, of which the whole set has up to 1."""
    return np.stack([scene(10 * seed + channel) for channel in range(3)], axis=-1) ** 0.5


def test_twelve_bits_of_colour_in_sixteen_are_as_bright_as_they_were(tmp_path: Path) -> None:
    """Pillow decodes the upper byte alone, which has 16 levels here."""
    makers = {
        "0.png": png_of_16_bits,
        "1.tif": lambda values: tiff_of_16_bits(values, "<"),
        "2.tif": lambda values: tiff_of_16_bits(values, ">"),
        "4.tif": lambda values: tiff_of_16_bits(values, "<", packed=True),
        "5.tif": lambda values: tiff_of_16_bits(values, ">", packed=True),
        "6.png": lambda values: png_of_16_bits(np.dstack([values, np.full(values.shape[:2], 65535)])),
    }
    files = {name: make(4095 * colour(number)) for number, (name, make) in enumerate(makers.items())}
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    for number, photo in enumerate(photos.photos):
        found = pixels(tmp_path / "out", photo.name)
        assert np.abs(found - 255 * colour(number)).mean() < 3  # levels: JPEG; 16 levels in all would be 8 apart
    assert photos.notes == (
        "6 photos of more than 8 bits were scaled alike: levels from 0 to 4,095 are black to white.",
    )


def test_sixteen_bits_of_colour_stay_as_they_are(tmp_path: Path) -> None:
    files = {f"{number}.png": png_of_16_bits(65535 * colour(number)) for number in range(3)}
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    assert {name: (tmp_path / "out/images" / name).read_bytes() for name in files} == files
    assert photos.notes == ()


def test_cameras_have_ranges_of_their_own(tmp_path: Path) -> None:
    files = deep_set(7000, 1500, "TIFF")
    other = {
        f"near-infrared/{number}.tif": stored(
            Image.fromarray((65535 * scene(seed)).astype(np.uint16)), "TIFF", exif=exif()
        )
        for number, seed in enumerate((5, 6, 7))
    }
    photos = run(folder_of(tmp_path / "in", files | other), tmp_path / "out")
    assert len(photos.notes) == 2
    assert "levels from 0 to 65,535 are black to white" in " ".join(photos.notes)
    assert pixels(tmp_path / "out", "near-infrared/0.jpg").mean() == pytest.approx(255 * scene(5).mean(), abs=2)


def test_the_number_of_threads_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder_of(tmp_path / "in", deep_set(7000, 1500, "TIFF") | three())
    made = []
    for cores in (1, 8):
        monkeypatch.setattr(ingest_module.os, "cpu_count", lambda cores=cores: cores)
        run(source, tmp_path / f"out{cores}")
        made.append({path.name: path.read_bytes() for path in (tmp_path / f"out{cores}").rglob("*.j*")})
    assert made[0] == made[1]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_hidden_colours_of_transparent_pixels_are_never_seen(kind: str, tmp_path: Path) -> None:
    files = {}
    for seed in range(3):
        image = picture(seed)
        hidden = Image.new("RGB", image.size, "magenta")
        mask = Image.radial_gradient("L").resize(image.size).point(lambda level: 255 * (level < 128))
        cut = Image.composite(image, hidden, mask)
        cut.putalpha(mask)
        files[f"{seed}.{kind.lower()}"] = stored(
            cut, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})
        )
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    for seed in range(3):
        found = pixels(tmp_path / "out", f"{seed}.png")
        inside = np.asarray(Image.radial_gradient("L").resize((96, 72))) < 128
        assert np.array_equal(found[inside], np.asarray(picture(seed), float)[inside])
        assert not found[~inside].any()
    assert photos.notes[0].startswith("3 photos have transparent pixels: they are black")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_an_alpha_channel_without_transparency_is_left_out_without_a_word(mode: str, tmp_path: Path) -> None:
    image = picture(9)
    if mode == "P":
        data = stored(image.convert("P"), "PNG", transparency=bytes([255] * 256))
    else:
        image.putalpha(255)
        data = stored(image.convert(mode), "PNG")
    photos = run(folder_of(tmp_path / "in", {**three(), "a.png": data}), tmp_path / "out")
    assert "a.png" in [photo.name for photo in photos.photos]
    assert pixels(tmp_path / "out", "a.png").ndim == (2 if mode == "LA" else 3)
    assert photos.notes == ()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_photos_under_other_names_are_known_by_their_first_bytes(packed: bool, tmp_path: Path) -> None:
    files = {
        "100_7108": encoded(3),
        "IMG.heic_": encoded(4, "HEIF"),
        "DCIM/b.JPG.bak": encoded(5),
        "c.txt": encoded(6, "PNG"),
        "notes.txt": b"text",
        "film.thm": encoded(7),
        "x.jxl": b"\xff\x0a" + bytes(40),
        "empty": b"",
    }
    all_files = three() | files
    source = zip_of(tmp_path / "in.zip", all_files) if packed else folder_of(tmp_path / "in", all_files)
    photos = run(source, tmp_path / "out", PhotosOptions())
    names = {"100_7108.jpg", "IMG.jpg", "DCIM/b.JPG.jpg", "c.png"}
    assert {photo.name for photo in photos.photos} == names | three().keys()
    assert photos.not_read == {".jxl": 1, ".thm": 1, ".txt": 1, "no extension": 1}
    assert (tmp_path / "out/images/100_7108.jpg").read_bytes() == files["100_7108"]


def test_linked_folders_are_searched_once_and_never_round_and_round(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", three())
    far = folder_of(tmp_path / "elsewhere", {f"far{n}.jpg": encoded(4 + n) for n in range(2)})
    (source / "far").symlink_to(far)
    (source / "far again").symlink_to(far)
    (source / "sub").mkdir()
    (source / "sub/back").symlink_to(source)
    (far / "up").symlink_to(tmp_path)
    (far / "own").symlink_to(far)
    (source / "gone").symlink_to(tmp_path / "nothing")
    (source / ".hidden").symlink_to(far)
    before = {path: path.read_bytes() for path in far.glob("*.jpg")}
    photos = run(source, tmp_path / "out")
    assert [photo.name for photo in photos.photos] == ["far/far0.jpg", "far/far1.jpg", *three()]
    assert photos.rejected == ()
    assert {path: path.read_bytes() for path in far.glob("*.jpg")} == before


def test_names_that_differ_in_case_or_in_how_an_accent_is_written_are_all_kept(tmp_path: Path) -> None:
    files = {"a.jpg": encoded(1), "A.JPG": encoded(2), "caf\u00e9.jpg": encoded(3), "cafe\u0301.jpg": encoded(4)}
    for source in (folder_of(tmp_path / "in", files), zip_of(tmp_path / "in.zip", files)):
        out = tmp_path / f"out{source.suffix}"
        photos = run(source, out)
        assert len({photo.name.casefold() for photo in photos.photos}) == 4
        stored_files = {(out / "images" / photo.name).read_bytes() for photo in photos.photos}
        assert stored_files == set(files.values())


def test_a_zip_that_does_not_say_that_its_names_are_utf_8(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "in.zip", {**three(), "größe.jpg": encoded(4)})
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):  # bit 11 of the flags, in both headers
        place = content.find(sign)
        while place >= 0:
            content[place + offset] &= ~0x08
            place = content.find(sign, place + 4)
    path.write_bytes(content)
    assert "größe.jpg" in [photo.name for photo in run(path, tmp_path / "out").photos]
