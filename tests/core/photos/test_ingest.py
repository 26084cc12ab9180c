"""Inputs and outputs of the photos stage, case by case. Pictures are generated, small and all different."""

import io
import math
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from tasks.core.errors import PhotosError
from tasks.core.photos.exif import read_exif
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import CheckedPhotos, PhotoSet
from tasks.core.progress import Progress, ignore_progress
from tasks.core.safe_names import printable

WIDTH, HEIGHT = 96, 72


def picture(seed: int, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size).point(lambda level: 128 + level // 2))
    return image


def encoded(seed: int, kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(seed, mode=mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def solid(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (level, level, level)).save(buffer, format="JPEG")
    return buffer.getvalue()


def exif(**changes: object) -> Image.Exif:
    """A drone's EXIF at 46.5 N, 91.25 W, 200 m."""
    block = Image.Exif()
    block[Base.Make], block[Base.Model] = "Maker\0", "Model"
    block[Base.Orientation] = changes.get("orientation", 1)
    details = block.get_ifd(IFD.Exif)
    details[Base.DateTimeOriginal] = changes.get("time", "2024:05:06 07:08:09")
    details[Base.SubsecTimeOriginal] = "25"
    details[Base.FocalLengthIn35mmFilm] = 24
    position = block.get_ifd(IFD.GPSInfo)
    position[GPS.GPSLatitudeRef], position[GPS.GPSLatitude] = "N", (46.0, 30.0, 0.0)
    position[GPS.GPSLongitudeRef], position[GPS.GPSLongitude] = "W", (91.0, 15.0, 0.0)
    position[GPS.GPSAltitudeRef], position[GPS.GPSAltitude] = changes.get("below", b"\x00"), 200.0
    return block


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def zip_of(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def three() -> dict[str, bytes]:
    return {f"good{i}.jpg": encoded(i) for i in range(3)}


def run(source: Path, out: Path, options: PhotosOptions | None = None) -> CheckedPhotos:
    return ingest(source, out, options or PhotosOptions(), ignore_progress)


REJECTED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "cut to a third": ("a.jpg", lambda: encoded(9, quality=95)[: len(encoded(9, quality=95)) // 3], "cut off"),
    "cut to 200 bytes": ("a.jpg", lambda: encoded(9)[:200], "cut off"),
    "cut PNG": ("a.png", lambda: encoded(9, "PNG")[:-2000], "cut off"),
    "nothing in it": ("a.jpg", lambda: b"", "empty"),
    "text": ("a.jpg", lambda: b"I am not a photo.\n" * 50, "not an image"),
    "black": ("a.jpg", lambda: solid(0), "blank"),
    "white": ("a.jpg", lambda: solid(255), "blank"),
    "twin": ("z.jpg", lambda: encoded(1), "byte-identical to good1.jpg"),
    "tiny": ("a.png", lambda: _png(picture(9, (8, 8))), "8x8 px is too small; need 64 px"),
    "tiny JPEG": ("a.jpg", lambda: jpeg_of(5, 5), "5x5 px is too small"),
    "narrow JPEG": ("a.jpg", lambda: jpeg_of(7, 200), "7x200 px is too small"),
    "Lab": ("a.tif", lambda: encoded(9, "TIFF", "LAB"), "colours that cannot be converted"),
    "too long for a JPEG": ("a.tif", lambda: tiff_of(65_501, 64), "65501x64 px; a JPEG has at most 65500 px a side"),
    "raw": ("a.dng", lambda: b"II*\0" + bytes(100), "raw file"),
    "bomb": ("a.png", lambda: _png_header_of(40_000, 40_000), "megapixels"),
}


def jpeg_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    picture(9, (width, height)).save(buffer, format="JPEG")
    return buffer.getvalue()


def tiff_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    picture(9, (width, height)).save(buffer, format="TIFF")
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _png_header_of(width: int, height: int) -> bytes:
    """A small PNG that claims another size: read from the header alone."""
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = _png(picture(1))
    return data[:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


@pytest.mark.parametrize("case", REJECTED)
def test_bad_photo_is_rejected_with_its_reason(case: str, tmp_path: Path) -> None:
    name, make, reason = REJECTED[case]
    photos = run(folder_of(tmp_path / "in", {**three(), name: make()}), tmp_path / "out")
    assert [photo.name for photo in photos.photos] == ["good0.jpg", "good1.jpg", "good2.jpg"]
    assert [photo.name for photo in photos.rejected] == [printable(name)]
    assert reason in photos.rejected[0].reason
    assert photos.found == 4


CONVERTED = {
    "webp": ("a.webp", "WEBP", "RGB", "a.jpg"),
    "webp with alpha": ("a.webp", "WEBP", "RGBA", "a.png"),
    "tiff": ("a.TIF", "TIFF", "RGB", "a.jpg"),
    "gif": ("a.gif", "GIF", "P", "a.jpg"),
    "bmp": ("a.bmp", "BMP", "RGB", "a.jpg"),
    "heic": ("a.HEIC", "HEIF", "RGB", "a.jpg"),
    "cmyk": ("a.jpg", "JPEG", "CMYK", "a.jpg"),
    "16 bit": ("a.png", "PNG", "I;16", "a.jpg"),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_other_formats_are_converted(case: str, tmp_path: Path) -> None:
    name, kind, mode, stored = CONVERTED[case]
    if mode == "I;16":
        grey = np.asarray(picture(9, mode="L")).astype(np.uint16) * 257
        data = _png(Image.fromarray(grey))
    else:
        data = encoded(9, kind, mode)
    photos = run(folder_of(tmp_path / "in", {**three(), name: data}), tmp_path / "out")
    assert not photos.rejected
    assert stored in [photo.name for photo in photos.photos]
    whole = picture(9, mode="L" if mode == "I;16" else mode)
    if mode == "RGBA":
        whole = Image.alpha_composite(Image.new("RGBA", whole.size, "black"), whole)
    expected = np.asarray(whole.convert("RGB"), dtype=float)
    with Image.open(tmp_path / "out/images" / stored) as image:
        assert image.mode in ("L", "RGB")
        assert image.format == ("PNG" if stored.endswith("png") else "JPEG")
        difference = np.abs(np.asarray(image.convert("RGB"), dtype=float) - expected).mean()
    # lossy codecs and CMYK move levels by a few of 255; a wrong conversion by tens
    assert difference < 6


def test_jpeg_and_png_are_kept_byte_for_byte(tmp_path: Path) -> None:
    files = {"a.JPG": encoded(1), "b.png": encoded(2, "PNG"), "c/d e.jpeg": encoded(3)}
    run(folder_of(tmp_path / "in", files), tmp_path / "out")
    assert {name: (tmp_path / "out/images" / name).read_bytes() for name in files} == files


def test_orientation_is_baked_in_and_exif_survives(tmp_path: Path) -> None:
    files = {**three(), "a.jpg": encoded(9, exif=exif(orientation=6), quality=95)}
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    photo = next(photo for photo in photos.photos if photo.name == "a.jpg")
    assert (photo.width, photo.height) == (HEIGHT, WIDTH)
    with Image.open(tmp_path / "out/images/a.jpg") as image:
        assert image.size == (HEIGHT, WIDTH)
        assert image.getexif().get(Base.Orientation, 1) == 1
        assert image.getexif().get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] == 24
        assert image.getexif().get_ifd(IFD.GPSInfo)[GPS.GPSLatitude] == (46, 30, 0)
        expected = np.asarray(picture(9).transpose(Image.Transpose.ROTATE_270), dtype=float)
        assert np.abs(np.asarray(image, dtype=float) - expected).mean() < 3  # levels, two JPEG generations


def ifd(at: int, entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """A folder of EXIF that begins at a byte: tag, type, count and value of each entry."""
    head, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in sorted(entries):
        behind = at + 2 + 12 * len(entries) + 4 + len(values)
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", behind)
        values += value if len(value) > 4 else b""
        head += struct.pack("<HHI", tag, kind, count) + place
    return head + bytes(4) + values


ASCII, LONG, RATIONAL, BYTE, DOUBLE = 2, 4, 5, 1, 12
EAST = [(3, ASCII, 2, b"E\0"), (4, RATIONAL, 3, struct.pack("<6I", 20, 1, 0, 1, 0, 1))]
TEN = (2, RATIONAL, 3, struct.pack("<6I", 10, 1, 0, 1, 0, 1))
ODD_EXIF: dict[str, tuple[list[tuple[int, int, int, bytes]], list[tuple[int, int, int, bytes]], float | None]] = {
    "no number": ([], [(2, DOUBLE, 3, struct.pack("<3d", math.nan, 0, 0)), *EAST], None),
    "infinite": ([], [(2, DOUBLE, 3, struct.pack("<3d", math.inf, 0, 0)), *EAST], None),
    "negative": ([], [(2, DOUBLE, 3, struct.pack("<3d", -10, 0, 0)), *EAST], None),
    "zero denominators": ([], [(2, RATIONAL, 3, struct.pack("<6I", 10, 0, 0, 0, 0, 0)), *EAST], None),
    "text for degrees": ([], [(2, ASCII, 4, b"ten\0"), *EAST], None),
    "bytes for a letter": ([], [(1, BYTE, 1, b"S"), TEN, *EAST], -10),
    "altitude no number": ([], [TEN, *EAST, (6, DOUBLE, 1, struct.pack("<d", math.nan))], 10),
    "resolution no number": ([(0x011A, DOUBLE, 1, struct.pack("<d", math.nan))], [TEN, *EAST], 10),
    "resolution a text": ([(0x011A, ASCII, 4, b"abc\0")], [TEN, *EAST], 10),
    "model a number": ([(0x0110, RATIONAL, 1, struct.pack("<2I", 1, 0))], [TEN, *EAST], 10),
}


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("case", ODD_EXIF)
def test_values_of_a_wrong_type_cost_no_photo(case: str, orientation: int, tmp_path: Path) -> None:
    """Turning a photo upright wrote its EXIF anew, which ended the whole run."""
    main, position, latitude_deg = ODD_EXIF[case]
    main = [*main, (Base.Orientation, 3, 1, struct.pack("<H", orientation))]
    pointer = (IFD.GPSInfo, LONG, 1, struct.pack("<I", 8 + len(ifd(8, [*main, (IFD.GPSInfo, LONG, 1, bytes(4))]))))
    front = struct.pack("<2sHI", b"II", 42, 8) + ifd(8, [*main, pointer])
    data = encoded(9, exif=b"Exif\0\0" + front + ifd(len(front), position))
    photos = run(folder_of(tmp_path / "in", {**three(), "a.jpg": data}), tmp_path / "out")
    photo = next(photo for photo in photos.photos if photo.name == "a.jpg")
    assert (photo.width, photo.height) == ((WIDTH, HEIGHT) if orientation == 1 else (HEIGHT, WIDTH))
    assert (photo.gps and photo.gps.latitude_deg) == latitude_deg
    with Image.open(tmp_path / "out/images/a.jpg") as image:
        assert image.size == (photo.width, photo.height)
        assert read_exif(image).gps == photo.gps


def test_exif_facts(tmp_path: Path) -> None:
    files = {f"{i}.jpg": encoded(i, exif=exif(below=b"\x01" if i == 2 else b"\x00")) for i in range(3)}
    photo, _, below = run(folder_of(tmp_path / "in", files), tmp_path / "out").photos
    assert photo.camera == "Maker Model"
    assert photo.taken_at == "2024-05-06T07:08:09.250000"
    assert photo.gps is not None
    assert (photo.gps.latitude_deg, photo.gps.longitude_deg, photo.gps.altitude_m) == (46.5, -91.25, 200.0)
    assert below.gps is not None
    assert below.gps.altitude_m == -200.0
    # 24 mm against the 43.27 mm diagonal of 36 x 24
    assert photo.focal_px == pytest.approx(24 / np.hypot(36, 24) * np.hypot(WIDTH, HEIGHT))


OFFSETS: dict[str, tuple[dict[str, object], int | None]] = {
    "nothing": ({}, None),
    "said": ({"offset": "+05:30"}, 330),
    "behind": ({"offset": "-03:30\0"}, -210),
    "utc": ({"offset": "Z"}, 0),
    "nonsense": ({"offset": "   :  "}, None),
    "by the GPS clock": ({"clock": (1.0, 38.0, 41.0)}, 330),  # EXIF says 07:08:09
    "GPS clock of the day before": ({"clock": (23.0, 8.0, 0.0), "day": "2024:05:05"}, 480),
    "an old fix": ({"clock": (1.0, 30.0, 0.0)}, None),
    "said against the GPS clock": ({"offset": "+02:00", "clock": (1.0, 38.0, 41.0)}, 120),
    "no number": ({"clock": (1.0, 38.0)}, None),
}


@pytest.mark.parametrize("orientation", [1, 6], ids=["kept", "converted"])
@pytest.mark.parametrize("case", OFFSETS)
def test_how_far_the_cameras_clock_is_from_utc(case: str, orientation: int, tmp_path: Path) -> None:
    says, minutes = OFFSETS[case]
    block = exif(orientation=orientation)
    if "offset" in says:
        block.get_ifd(IFD.Exif)[Base.OffsetTimeOriginal] = says["offset"]
    if "clock" in says:
        block.get_ifd(IFD.GPSInfo)[GPS.GPSTimeStamp] = says["clock"]
        block.get_ifd(IFD.GPSInfo)[GPS.GPSDateStamp] = says.get("day", "2024:05:06")
    source = folder_of(tmp_path / "in", {f"{i}.jpg": encoded(i, exif=block) for i in range(3)})
    assert {photo.utc_offset_minutes for photo in run(source, tmp_path / "out").photos} == {minutes}
    again = run(tmp_path / "out/images", tmp_path / "again")  # what was converted still says it
    assert {photo.utc_offset_minutes for photo in again.photos} == {minutes}


def test_order_is_by_time_where_all_have_it_else_natural(tmp_path: Path) -> None:
    timed = {f"p{i}.jpg": encoded(i, exif=exif(time=f"2024:05:06 07:08:{30 - i:02}")) for i in (1, 2, 10)}
    by_time = run(folder_of(tmp_path / "a", timed), tmp_path / "a-out")
    assert [photo.name for photo in by_time.photos] == ["p10.jpg", "p2.jpg", "p1.jpg"]
    by_name = run(folder_of(tmp_path / "b", {**timed, "p3.jpg": encoded(3)}), tmp_path / "b-out")
    assert [photo.name for photo in by_name.photos] == ["p1.jpg", "p2.jpg", "p3.jpg", "p10.jpg"]


def test_names_stay_apart(tmp_path: Path) -> None:
    files = {"x/a.jpg": encoded(1), "y/a.jpg": encoded(2), "x/a.webp": encoded(3, "WEBP"), "x/ä 'b'.jpg": encoded(4)}
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    assert [photo.name for photo in photos.photos] == ["x/a.jpg", "x/a-2.jpg", "x/ä 'b'.jpg", "y/a.jpg"]
    assert all((tmp_path / "out/images" / photo.name).is_file() for photo in photos.photos)
    assert PhotoSet.load(tmp_path / "out") == photos.photo_set


def test_a_name_that_is_a_folder_of_another_gets_out_of_its_way(tmp_path: Path) -> None:
    """a.webp becomes a.jpg, which is the name of a folder beside it."""
    files = {"a.webp": encoded(1, "WEBP"), "a.jpg/b.jpg": encoded(2), "c.jpg": encoded(3)}
    photos = run(folder_of(tmp_path / "in", files), tmp_path / "out")
    assert {photo.name for photo in photos.photos} == {"a.jpg/b.jpg", "a-2.jpg", "c.jpg"}
    assert all((tmp_path / "out/images" / photo.name).is_file() for photo in photos.photos)


@pytest.mark.parametrize("in_zip", [False, True], ids=["folder", "zip"])
def test_names_of_any_bytes_are_read_and_stored_in_characters_that_can_be_shown(in_zip: bool, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", three())
    names = [b"caf\xe9.jpg", b"caf\xe8.jpg", b"two\nlines.jpg"][in_zip * 2 :]  # a .zip has characters, not bytes
    for seed, name in enumerate(names, start=4):
        (Path(os.fsdecode(bytes(source) + b"/" + name))).write_bytes(encoded(seed))
    (Path(os.fsdecode(bytes(source) + b"/torn \xff.png"))).write_bytes(b"" if in_zip else encoded(9, "PNG")[:500])
    if in_zip:
        files = {path.name: path.read_bytes() for path in source.iterdir() if path.name.isascii()}
        source = zip_of(tmp_path / "in.zip", files)
    photos = run(source, tmp_path / "out")
    stored = {photo.name for photo in photos.photos} - three().keys()
    assert stored == ({"two\ufffdlines.jpg"} if in_zip else {"caf\ufffd.jpg", "caf\ufffd-2.jpg", "two\ufffdlines.jpg"})
    assert all((tmp_path / "out/images" / name).is_file() for name in stored)
    assert [photo.name for photo in photos.rejected] == ([] if in_zip else ["torn \ufffd.png"])
    assert photos.model_dump_json()


def test_one_file_more_that_cannot_be_used_makes_no_other_set(tmp_path: Path) -> None:
    run(folder_of(tmp_path / "in", three()), tmp_path / "before")
    more = run(folder_of(tmp_path / "in", {"a.dng": b"raw", "b.jpg": b"text"}), tmp_path / "after")
    assert len(more.rejected) == 2
    assert (tmp_path / "after/photos.json").read_bytes() == (tmp_path / "before/photos.json").read_bytes()


def test_other_files_are_counted_and_those_of_systems_are_ignored(tmp_path: Path) -> None:
    system = {".DS_Store": b"x", "__MACOSX/a.jpg": b"x", "._good0.jpg": b"x", "sub/Thumbs.db": b"x"}
    other = {"notes.txt": b"x", "film.mp4": b"x", "good0.XMP": b"x", "sub/good1.xmp": b"x", "README": b"x"}
    photos = run(folder_of(tmp_path / "in", {**three(), **system, **other}), tmp_path / "out")
    assert photos.found == 3
    assert photos.not_read == {".xmp": 2, ".mp4": 1, ".txt": 1, "no extension": 1}


def test_progress_counts_photos(tmp_path: Path) -> None:
    seen: list[Progress] = []
    ingest(folder_of(tmp_path / "in", three()), tmp_path / "out", PhotosOptions(), seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(1, 3), (2, 3), (3, 3)]


REFUSED: dict[str, tuple[dict[str, bytes] | None, str]] = {
    "missing": (None, "does not exist"),
    "empty": ({}, "is empty"),
    "no photos": ({"a.txt": b"x", "b.csv": b"x", "c": b"x"}, "No photos among 3 files"),
    "videos": ({"a.MP4": b"x", "b.srt": b"x"}, r"found: \.mp4, \.srt.* extract their frames first, as with ffmpeg"),
    "one": ({"a.jpg": encoded(1)}, "Only 1 of 1 photos"),
    "two": ({"a.jpg": encoded(1), "b.jpg": encoded(2)}, "Only 2 of 2 photos"),
    "two and a broken one": ({"a.jpg": encoded(1), "b.jpg": encoded(2), "c.jpg": b"x"}, "c.jpg: not an image"),
    "black": ({f"{i}.jpg": solid(i) for i in range(4)}, "All 4 photos in in are blank"),
    "copies": ({f"{i}.jpg": encoded(1) for i in range(5)}, "Only 1 of 5 photos"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_set_is_one_clear_sentence_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    files, message = REFUSED[case]
    if files is not None:
        folder_of(tmp_path / "in", files).mkdir(exist_ok=True)
    with pytest.raises(PhotosError, match=message):
        run(tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
