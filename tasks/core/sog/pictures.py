"""The pictures of a SOG: lossless WebP, decoded only after its header has stated an acceptable size."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS
from tasks.core.safe_names import reason
from tasks.core.sog import layout
from tasks.core.sog.attributes import UInt8

_RIFF_HEADER = 12  # "RIFF", size, "WEBP"
_CHUNK_HEADER = 8
_VP8L_SIGNATURE = 0x2F
_ANIMATION_FLAG = 0x02

# Lossless WebP of noise is a little larger than the pixels; the rest is for headers and metadata.
BYTES_PER_PIXEL = 5
HEADROOM_BYTES = 1 << 16


# libwebp's method and how hard it looks for repetitions, from quickest to smallest. Figures: docs/sog.md.
EFFORTS = ((0, 20), (1, 20), (1, 50), (2, 25), (4, 50), (6, 100))

ReadMember = Callable[[str, int], bytes]  # (name, greatest size in bytes) -> content

_MOST_ROWS = layout.MAX_PALETTE // layout.PALETTE_COLUMNS


def encode_webp(pixels: NDArray[np.uint8], effort: int) -> bytes:
    """RGBA pixels [H, W, 4] as lossless WebP. `exact` keeps colours where alpha is 0."""
    method, quality = EFFORTS[effort]
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "WEBP", lossless=True, exact=True, method=method, quality=quality)
    return buffer.getvalue()


def webp_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height in px from the header. https://developers.google.com/speed/webp/docs/riff_container.

    Raises FormatError for anything but one still, lossless WebP picture: the decoder would allocate as much as an
    animation's header says, and lossy bytes cannot hold numbers.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise FormatError(f"{name} is not a WebP picture.")
    canvas: tuple[int, int] | None = None
    start = _RIFF_HEADER
    while start + _CHUNK_HEADER <= len(data):
        kind, length = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        body = data[start + _CHUNK_HEADER : start + _CHUNK_HEADER + 10]
        if kind == b"VP8X" and len(body) == 10 and not body[0] & _ANIMATION_FLAG:
            canvas = (int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1)
        elif kind == b"VP8L" and len(body) >= 5 and body[0] == _VP8L_SIGNATURE:
            bits = int.from_bytes(body[1:5], "little")
            size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
            if canvas not in (None, size):
                raise FormatError(f"{name} is damaged: its picture does not fill its canvas.")
            return size
        elif kind in (b"VP8 ", b"ALPH", b"VP8X", b"VP8L", b"ANIM", b"ANMF"):
            break
        start += _CHUNK_HEADER + length + length % 2
    raise FormatError(f"{name} is not a still, lossless WebP picture, which SOG needs.")


def decode_webp(data: bytes, name: str) -> NDArray[np.uint8]:
    """RGBA pixels [H, W, 4]. The caller has checked `webp_size`. Raises FormatError when the bytes are damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            return np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise FormatError(f"{name} cannot be decoded: {reason(error)}. The file is damaged; write it again.") from error


class Pixels:
    """Reads RGBA pixels [M, 4] of the pictures of one splat; FormatError for a picture of a wrong size or kind."""

    def __init__(self, read: ReadMember, count: int, bundle: str) -> None:
        self._read, self._count, self._bundle = read, count, bundle

    def of_gaussians(self, name: str) -> UInt8:
        """One pixel for each Gaussian."""
        # other writers choose other shapes, but all waste at most a few rows
        most = 2 * self._count + 4096
        data, (width, height) = self._header(name, most)
        if not self._count <= width * height <= most:
            raise FormatError(
                f"{self._bundle}: {name} is {width} x {height} px, which does not fit the count of {self._count:,} in "
                "meta.json."
            )
        return self._decoded(data, name, width, height)[: self._count]

    def of_size(self, name: str, size: tuple[int, int]) -> UInt8:
        """All pixels of a picture of this size in px."""
        data, found = self._header(name, size[0] * size[1])
        if found != size:
            raise FormatError(
                f"{self._bundle}: {name} is {found[0]} x {found[1]} px, meta.json asks for {size[0]} x {size[1]}."
            )
        return self._decoded(data, name, *size)

    def of_palette(self, name: str) -> tuple[UInt8, int]:
        """All pixels of a palette, sized as the picture's header says, and the coefficients of an entry: 3, 8 or 15."""
        widths = {layout.PALETTE_COLUMNS * (total - 1): total - 1 for total in SH_COEFFICIENTS[1:]}
        data, (width, height) = self._header(name, max(widths) * _MOST_ROWS)
        if width not in widths or height > _MOST_ROWS:
            raise FormatError(
                f"{self._bundle}: {name} is {width} x {height} px; a palette is 192, 512 or 960 wide and at most "
                f"{_MOST_ROWS} high."
            )
        return self._decoded(data, name, width, height), widths[width]

    def _header(self, name: str, most_pixels: int) -> tuple[bytes, tuple[int, int]]:
        data = self._read(name, most_pixels * BYTES_PER_PIXEL + HEADROOM_BYTES)
        return data, webp_size(data, name)

    def _decoded(self, data: bytes, name: str, width: int, height: int) -> UInt8:
        decoded = decode_webp(data, name)
        if decoded.shape[:2] != (height, width):
            raise FormatError(
                f"{self._bundle}: {name} holds {decoded.shape[1]} x {decoded.shape[0]} px, its header says less."
            )
        return decoded.reshape(-1, 4)
