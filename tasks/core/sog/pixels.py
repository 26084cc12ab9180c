"""The pictures of a SOG as rows of pixels, none decoded before its header has said a size that is wanted."""

from collections.abc import Callable

from tasks.core.errors import FormatError
from tasks.core.gaussians import SH_COEFFICIENTS
from tasks.core.sog import layout
from tasks.core.sog.attributes import UInt8
from tasks.core.sog.webp import BYTES_PER_PIXEL, HEADROOM_BYTES, decode_webp, webp_size

ReadMember = Callable[[str, int], bytes]  # (name, greatest size in bytes) -> content

_MOST_ROWS = layout.MAX_PALETTE // layout.PALETTE_COLUMNS


class Pixels:
    """Reads RGBA pixels [M, 4] of the pictures of one splat; FormatError for a picture of another size or kind."""

    def __init__(self, read: ReadMember, count: int, bundle: str) -> None:
        self._read, self._count, self._bundle = read, count, bundle

    def of_gaussians(self, name: str) -> UInt8:
        """One pixel for each Gaussian."""
        # other writers choose other shapes, but none wastes more than a few rows
        most = 2 * self._count + 4096
        data, (width, height) = self._header(name, most)
        if not self._count <= width * height <= most:
            raise FormatError(
                f"{self._bundle}: {name} is {width} x {height} px, which does not fit the count of {self._count:,} in "
                "meta.json."
            )
        return self._decoded(data, name, width, height)[: self._count]

    def of_size(self, name: str, size: tuple[int, int]) -> UInt8:
        """All pixels of a picture of so many px."""
        data, found = self._header(name, size[0] * size[1])
        if found != size:
            raise FormatError(
                f"{self._bundle}: {name} is {found[0]} x {found[1]} px, meta.json asks for {size[0]} x {size[1]}."
            )
        return self._decoded(data, name, *size)

    def of_palette(self, name: str) -> tuple[UInt8, int]:
        """All pixels of a palette whose size the picture says, and how many coefficients an entry has: 3, 8 or 15."""
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
