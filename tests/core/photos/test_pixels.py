"""One photo that a stranger made: what it may cost, and what it may not."""

import errno
import io
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.errors import PhotosError
from tasks.core.image_file import ImageError, open_image
from tasks.core.photos import pixels
from tasks.core.photos.files import Offered
from tasks.core.photos.headers import read_headers
from tasks.core.photos.memory import (
    BUDGET_BYTES,
    MOST_SCANS,
    MemoryBudget,
    coefficient_bytes,
    decoding_bytes,
    require_few_scans,
)
from tasks.core.photos.options import PhotosOptions
from tasks.core.pixels import levels
from tasks.places.sources import local_source
from tests.core.photos.test_ingest import encoded, exif, folder_of, picture, run, three


def stage(data: bytes, folder: Path) -> pixels.StagedPhoto:
    (folder / "a.jpg").write_bytes(data)
    return pixels.stage_photo(Offered("a.jpg", folder / "a.jpg"), folder / "out", PhotosOptions(), MemoryBudget())


def test_pipes_and_devices_are_rejected_unopened(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", three())
    os.mkfifo(source / "pipe.jpg")
    (source / "zero.png").symlink_to("/dev/zero")
    (source / "loop.jpg").symlink_to("loop.jpg")
    (source / "gone.jpg").symlink_to("nothing")
    assert read_headers(source).unreadable == 4
    photos = run(source, tmp_path / "out")
    assert len(photos.photos) == 3
    assert {photo.name: photo.reason.split(" (")[0].split(" but")[0] for photo in photos.rejected} == {
        "pipe.jpg": "no regular file",
        "zero.png": "no regular file",
        "loop.jpg": "cannot be read",
        "gone.jpg": "cannot be read",
    }


def test_a_pipe_in_the_place_of_photos_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photos.zip")
    with pytest.raises(PhotosError, match="neither a folder nor a regular file"):
        local_source(str(tmp_path / "photos.zip"))


STEPS = {"load": "PIL.ImageFile.ImageFile.load", "turn": "PIL.Image.Image.transpose", "store": "PIL.Image.Image.save"}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "raised", [AttributeError("x"), KeyError("x"), struct.error("x"), zlib.error("x"), MemoryError()]
)
def test_whatever_a_decoder_raises_costs_its_photo_alone(
    step: str, raised: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(9, "TIFF", exif=exif(orientation=6))

    def failing(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(STEPS[step], failing)
    with pytest.raises(ImageError):
        stage(data, tmp_path)


def test_a_deep_photo_that_cannot_be_scaled_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: object) -> None:
        raise AttributeError("x")

    monkeypatch.setattr(levels, "_values", failing)
    with pytest.raises(ImageError):
        stage(encoded(9, "PNG", "I;16"), tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"], ids=["kept", "converted"])
def test_a_disk_that_fails_is_not_the_photos_fault(
    kind: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def failing(path: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if path.name == "out" and "w" in mode:
            raise OSError(code, os.strerror(code))
        return opened(path, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", failing)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        stage(encoded(9, kind), tmp_path)


def test_a_disk_that_fails_to_read_is_not_the_photos_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(pixels, "open_regular", failing)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        stage(encoded(9), tmp_path)


def test_a_file_larger_than_photos_are_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(6 << 30)  # takes no disk
    with pytest.raises(ImageError, match=r"6\.4 GB in one file, the limit is 1\.1 GB"):
        pixels.stage_photo(Offered("a.jpg", tmp_path / "a.jpg"), tmp_path / "out", PhotosOptions(), MemoryBudget())


def test_a_photo_that_takes_more_than_the_budget_is_rejected_by_its_header(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (12_000, 12_000)).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    with pytest.raises(ImageError, match=r"takes 3\.2 GB of memory to decode, the limit is 1\.5 GB; scale it down"):
        stage(buffer.getvalue(), tmp_path)


def test_the_budget_is_never_exceeded_and_serves_in_turn() -> None:
    memory, held, most = MemoryBudget(100), [0], [0]
    lock = threading.Lock()

    def work(needed: int) -> None:
        for _ in range(50):
            with memory.taking(needed):
                with lock:
                    held[0] += needed
                    most[0] = max(most[0], held[0])
                with lock:
                    held[0] -= needed

    threads = [threading.Thread(target=work, args=(needed,)) for needed in (100, 60, 40, 30, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < most[0] <= 100
    with pytest.raises(ImageError, match="the limit is"), memory.taking(101):
        pass


def exif_behind_pixels() -> bytes:
    """A PNG."""
    data = encoded(9, "PNG", exif=exif(orientation=6))
    begin = data.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(data[begin : begin + 4], "big")
    return data[:begin] + data[end:-12] + data[begin:end] + data[-12:]


@pytest.mark.parametrize("raised", [AssertionError("x"), RecursionError("x"), MemoryError()])
def test_exif_behind_the_pixels_that_nothing_can_read_costs_its_photo_alone(
    raised: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(image: Image.Image) -> Image.Exif:
        if image.info.get("exif"):  # not before the pixels
            raise raised
        return Image.Exif()

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.getexif", failing)
    with pytest.raises(ImageError):
        stage(exif_behind_pixels(), tmp_path)


def test_exif_behind_the_pixels_of_a_png_is_found_without_decoding_for_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = exif_behind_pixels()
    photo = stage(late, tmp_path)
    assert (photo.exif.orientation, photo.width, photo.height) == (6, 72, 96)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(late)
    assert len(read_headers(tmp_path / "in").photos) == 1


def progressive(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encoded(9, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_scans_of_a_jpeg_are_counted() -> None:
    require_few_scans(io.BytesIO(progressive(MOST_SCANS)))
    with pytest.raises(ImageError, match="more than 50 scans"):
        require_few_scans(io.BytesIO(progressive(MOST_SCANS + 1)))
    thumbnails = exif()
    thumbnails[0x9286] = b"\xff\xda\x00\x02" * 100  # bytes in EXIF are no scans
    require_few_scans(io.BytesIO(encoded(9, progressive=True, exif=thumbnails)))


def test_too_many_scans_are_a_rejection(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more than 50 scans"):
        stage(progressive(1000), tmp_path)


@pytest.mark.parametrize(
    ("data", "kept_bytes"),
    [
        (encoded(9), 0),
        (encoded(9, exif=exif()), 0),
        (encoded(9, mode="L"), 0),
        (encoded(9, progressive=True), 6),
        (encoded(9, mode="L", progressive=True), 2),
        (encoded(9).replace(b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x08\x01"), 6),
        (b"\xff\xd8\xff\xe1", 8),
        (b"\xff\xd8\xff\xff\xff\xff", 8),
    ],
    ids=["plain", "exif", "grey", "progressive", "progressive grey", "a scan for each colour", "cut", "unclear"],
)
def test_what_libjpeg_keeps_of_a_picture(data: bytes, kept_bytes: int) -> None:
    assert coefficient_bytes(io.BytesIO(data)) == kept_bytes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP", "GIF"])
def test_a_photo_of_48_megapixels_fits_whatever_its_format_is(kind: str) -> None:
    with open_image(io.BytesIO(encoded(9, kind))) as image:
        image._size = (8064, 6048)
        assert decoding_bytes(image, io.BytesIO(encoded(9, kind)), 20_000_000, False) <= BUDGET_BYTES


# Stages the same photo several times at once.
MEASURED = """
import sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from tasks.core.usage import PeakMemory
from tasks.core.photos.files import Offered
from tasks.core.photos.memory import MemoryBudget
from tasks.core.photos.options import PhotosOptions
from tasks.core.photos.pixels import stage_photo

folder, budget, count = Path(sys.argv[1]), MemoryBudget(int(sys.argv[2])), int(sys.argv[3])
photo, options = Offered("a.png", folder / "a.png"), PhotosOptions()
with PeakMemory() as memory, ThreadPoolExecutor(count) as pool:
    list(pool.map(lambda i: stage_photo(photo, folder / f"out{i}", options, budget), range(count)))
print(memory.peak_bytes)
"""


def peak_bytes(folder: Path, side: int, budget_bytes: int, count: int) -> int:
    """Of a process that stages so many 16-bit grey photos at once."""
    levels = picture(9, mode="L").resize((side, side), Image.Resampling.NEAREST)
    Image.fromarray(np.asarray(levels, np.uint16) * 257).save(folder / "a.png", compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder), str(budget_bytes), str(count)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


def test_eight_deep_photos_at_once_stay_within_the_budget(tmp_path: Path) -> None:
    side = 4000
    needed = 3 * side * side
    alone = peak_bytes(tmp_path, 64, needed, 1)  # the process itself, with all it has loaded
    # One at a time, and some megabytes of each thread; all eight at once would take more than eight times as much.
    assert peak_bytes(tmp_path, side, needed, 8) - alone < 5 * needed
