"""The memory that a photo needs while it is decoded, and a budget for all threads together.

A file of a few kilobytes can contain a picture of gigabytes, so memory is computed as pixels × bytes from the header.

Each scan of a JPEG can cost a pass over all of its pixels. If the first scan does not contain everything (in
progressive files, and in files with a scan for each colour), libjpeg keeps the coefficients of the whole picture in
memory, and passes over them again for each scan. A file of a few kilobytes can have thousands of scans.
"""

import ctypes
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image

from tasks.core.image_file import ImageError
from tasks.core.pixels.levels import DEEP_MODES

MOST_SCANS = 50  # cameras write 1, progressive encoders about 10
COEFFICIENT_BYTES = 2  # of each component of a pixel, if none is scaled down
MOST_COMPONENTS = 4
MOST_SEGMENTS = 10_000  # before the first scan; a camera's thumbnails and maps need a few dozen

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers with the size and the components
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
MARKER = re.compile(rb"\xff+([^\x00\xff])")
MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # FF 00 is a data byte FF, and FF D0 to FF D7 are restarts

BUDGET_BYTES = 1_500_000_000
JPEG_FORMATS = ("JPEG", "MPO")
PIXEL_BYTES = dict.fromkeys(("1", "L", "P"), 1) | dict.fromkeys(DEEP_MODES[2:], 2)  # of Pillow's modes; 4 in all others
COLOUR_BYTES = 4
JUDGED_SCALE, JUDGED_PX = 8, 128  # of a JPEG that is kept: its pixels are only looked at, at an eighth of its size
CONVERTED_BYTES = 2 * COLOUR_BYTES  # a colour picture and its turned copy, or what it is encoded to
TRIMMED_BYTES = 32 << 20  # above this size, memory is returned immediately
READ_WHOLE = ("WEBP", "HEIF", "AVIF")  # files that both Pillow and the decoder read into memory
# Memory of decoders in addition to Pillow's picture, in bytes for each pixel: measured at 4000x4000, and rounded up for
# alpha and for 10 bits.
DECODER_BYTES = {"WEBP": 14, "HEIF": 6, "AVIF": 10, "BMP": 2}
BITS_PER_SAMPLE = 258  # a tag of TIFF
MOST_SAMPLE_BITS = 128  # of a pixel: four numbers of 32 bits


def coefficient_bytes(file: IO[bytes]) -> int:
    """Return the bytes that libjpeg keeps per pixel: 0 if one scan has everything, the maximum if that is unclear."""
    components = MOST_COMPONENTS
    file.seek(2)
    for _ in range(MOST_SEGMENTS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (*WITHOUT_LENGTH, 0x00, 0xFF):
            break
        length = int.from_bytes(head[2:], "big")
        if head[1] in FRAMES:
            components = min(file.read(6)[-1:][0], MOST_COMPONENTS) if length >= 8 else MOST_COMPONENTS
            if head[1] not in (0xC0, 0xC1):  # not one of the two sequential kinds that fit into one scan
                break
            file.seek(length - 8, 1)
        elif head[1] == START_OF_SCAN:
            return 0 if file.read(1) == bytes([components]) else COEFFICIENT_BYTES * components
        else:
            file.seek(max(length, 2) - 2, 1)
    return COEFFICIENT_BYTES * MOST_COMPONENTS if components == MOST_COMPONENTS else COEFFICIENT_BYTES * components


def require_few_scans(file: IO[bytes]) -> None:
    """Raise ImageError if the file's first picture has more than MOST_SCANS scans."""
    file.seek(0)
    data = file.read()
    position, scans, pattern = 2, 0, MARKER
    while found := pattern.search(data, position):
        marker, position = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return
        if marker in WITHOUT_LENGTH:
            continue
        position += max(int.from_bytes(data[position : position + 2], "big"), 2)
        if marker == START_OF_SCAN:
            scans, pattern = scans + 1, MARKER_IN_SCAN
        if scans > MOST_SCANS:
            raise ImageError(f"a JPEG of more than {MOST_SCANS} scans; save it again")


def defer_exif(image: Image.Image) -> bool:
    """Keep Pillow from decoding a PNG in search of EXIF after its pixels; returns whether there may be some."""
    deferred = image.format == "PNG" and "exif" not in image.info
    if deferred:
        image.info["exif"] = b""
    return deferred


class MemoryBudget:
    """Bytes that several threads take and return, served in the order of their requests."""

    def __init__(self, total_bytes: int = BUDGET_BYTES) -> None:
        self.total_bytes = total_bytes
        self._taken_bytes = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def taking(self, needed_bytes: int) -> Iterator[None]:
        """Wait for free bytes and hold them; must not be nested. Raises ImageError for more than the whole budget."""
        if needed_bytes > self.total_bytes:
            raise ImageError(
                f"takes {needed_bytes / 1e9:.1f} GB of memory to decode, the limit is {self.total_bytes / 1e9:.1f} GB; "
                "scale it down"
            )
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and self._taken_bytes + needed_bytes <= self.total_bytes
            )
            self._waiting.popleft()
            self._taken_bytes += needed_bytes
            self._changed.notify_all()
        try:
            yield
        finally:
            if needed_bytes > TRIMMED_BYTES:
                _return_free_memory()
            with self._changed:
                self._taken_bytes -= needed_bytes
                self._changed.notify_all()


def _return_free_memory() -> None:
    """Return free memory to the system. glibc keeps what each thread's largest photo took; others need no call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def judged_size(width: int, height: int) -> tuple[int, int]:
    """Return the least size at which a JPEG is decoded that is only looked at (px)."""
    return max(width // JUDGED_SCALE, min(width, JUDGED_PX)), max(height // JUDGED_SCALE, min(height, JUDGED_PX))


def decoding_bytes(image: Image.Image, file: IO[bytes], file_bytes: int, kept: bool) -> int:
    """The most memory that a photo needs while it is decoded, computed from its header.

    Args:
        image: opened from the file, nothing decoded yet.
        file: the photo's file; its position is moved.
        file_bytes: the file's size.
        kept: whether the file is stored unchanged, so that its pixels are only checked.
    """
    pixels = image.width * image.height
    own = PIXEL_BYTES.get(image.mode, COLOUR_BYTES)
    beside = DECODER_BYTES.get(image.format or "", 0)
    of_file = 2 * file_bytes if image.format in READ_WHOLE else 0
    if image.format in JPEG_FORMATS:
        beside = coefficient_bytes(file)
        of_file = file_bytes if beside else 0  # the file is read whole to count its scans
        if kept:
            small = min(image.size) >= JUDGED_SCALE * JUDGED_PX
            return pixels * beside + (pixels // JUDGED_SCALE**2 if small else pixels) + of_file
    elif image.format == "TIFF" and image.info.get("compression") != "raw":
        beside = -(-_sample_bits(image) // 8)  # one strip may hold the whole picture
    if kept:
        return pixels * (own + beside) + of_file
    grey = image.mode in ("L", *DEEP_MODES)
    return pixels * (beside + (own + 1 if grey else CONVERTED_BYTES)) + of_file


def _sample_bits(image: Image.Image) -> int:
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (MOST_SAMPLE_BITS,))
    numbers = bits if isinstance(bits, tuple) else (bits,)
    known = all(isinstance(number, int) and number >= 0 for number in numbers)
    return min(sum(numbers), MOST_SAMPLE_BITS) if known else MOST_SAMPLE_BITS
