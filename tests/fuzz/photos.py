"""Photos of all formats with bytes changed, cut, moved and mixed: a stored picture, or one rejection."""

import io
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.image_file import ImageError, open_image
from tasks.core.photos.files import Offered
from tasks.core.photos.headers import HeaderSource, headers_of
from tasks.core.photos.memory import MemoryBudget
from tasks.core.photos.options import PhotosOptions
from tasks.core.photos.pixels import stage_photo
from tasks.core.pixels import icc
from tasks.core.safe_names import printable
from tests.core.photos.test_ingest import encoded, exif, picture
from tests.core.photos.test_kinds import colour, png_of_16_bits, tiff_of_16_bits

SUITE_ROUNDS = 1500
# Numbers at which sizes, counts and offsets go wrong.
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def _deep(kind: str) -> bytes:
    buffer = io.BytesIO()
    grey = np.asarray(picture(9, mode="L"))
    values = grey.astype(np.float32) / 255 if kind == "F" else grey.astype(np.uint16) * 257
    Image.fromarray(values).save(buffer, "TIFF" if kind == "F" else "PNG")
    return buffer.getvalue()


MAKERS: list[Callable[[], bytes]] = [
    lambda: encoded(1),
    lambda: encoded(1, exif=exif(orientation=6)),
    lambda: encoded(1, progressive=True, exif=exif(orientation=3)),
    lambda: encoded(1, "JPEG", "CMYK"),
    lambda: encoded(1, "MPO", save_all=True, append_images=[picture(2)]),
    lambda: encoded(1, "PNG", "RGBA", exif=exif(orientation=8)),
    lambda: encoded(1, "PNG", "P"),
    lambda: _deep("I;16"),
    lambda: _deep("F"),
    lambda: encoded(1, "WEBP", exif=exif(orientation=6)),
    lambda: encoded(1, "WEBP", "RGBA", lossless=True),
    lambda: encoded(1, "TIFF", exif=exif(orientation=6)),
    *(lambda kind=kind: encoded(1, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")),
    lambda: encoded(1, "TIFF", "LAB"),
    lambda: encoded(1, icc_profile=icc.display_p3().profile),
    lambda: encoded(1, "PNG", "L", icc_profile=icc.adobe_rgb().profile),
    lambda: png_of_16_bits(4095 * colour(1)),
    lambda: tiff_of_16_bits(4095 * colour(1), "<"),
    lambda: encoded(1, "GIF", "P"),
    lambda: encoded(1, "GIF", "P", save_all=True, append_images=[picture(2, mode="P")]),
    lambda: encoded(1, "BMP"),
    lambda: encoded(1, "HEIF", exif=exif().tobytes()),
    lambda: encoded(1, "AVIF", exif=exif(orientation=6).tobytes()),
]


@cache
def samples() -> list[bytes]:
    """Whole photos, one of each kind."""
    return [make() for make in MAKERS]


def damaged(chance: random.Random, whole: bytes, others: list[bytes]) -> bytes:
    """The file with one to eight faults; half of them in its first kilobyte, where headers and EXIF are."""
    content = bytearray(whole)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(min(len(content), 1024) if chance.random() < 0.5 else len(content))
        match chance.randrange(7):
            case 0:
                content[place] ^= 1 << chance.randrange(8)
            case 1:
                content[place] = chance.randrange(256)
            case 2:
                number = chance.choice(EDGES).to_bytes(4, chance.choice(["big", "little"]))
                content[place : place + 4] = number[: chance.choice([2, 4])]
            case 3:
                del content[place : place + chance.randint(1, 64)]
            case 4:
                content[place:place] = content[place : place + chance.randint(1, 64)]
            case 5:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                content[place : place + 32] = other[start : start + 32]
            case 6 if chance.random() < 0.3:
                del content[place:]
        if not content:
            return b""
    return bytes(content)


def _round(chance: random.Random, folder: Path) -> None:
    data = damaged(chance, chance.choice(samples()), samples())
    path, stored = folder / "photo.jpg", folder / "stored"
    path.write_bytes(data)
    headers_of([HeaderSource("photo.jpg", lambda: path.open("rb"))])
    try:
        photo = stage_photo(Offered("photo.jpg", path), stored, PhotosOptions(), MemoryBudget())
    except ImageError as error:
        said = str(error)
        assert said == printable(said)
        return
    assert path.read_bytes() == data
    assert set(folder.iterdir()) == {path, stored}
    with open_image(stored) as image:  # as later stages will
        assert image.format in ("JPEG", "PNG", "MPO")
        assert image.size == (photo.width, photo.height)
        image.convert("RGB")


ROUND = _round
