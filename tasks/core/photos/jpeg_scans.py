"""The scans of a JPEG, of which each can cost a pass over all of its pixels.

Where the first scan does not hold all there is (progressive files, and those with a scan for each colour), libjpeg
keeps the coefficients of the whole picture in memory, and goes over them again for each scan. A file of some kilobytes
can have thousands of scans.
"""

import re
from typing import IO

from tasks.core.image_file import ImageError

MOST_SCANS = 50  # cameras write 1, progressive encoders about 10
COEFFICIENT_BYTES = 2  # of each component of a pixel, where none is scaled down
MOST_COMPONENTS = 4
MOST_SEGMENTS = 10_000  # before the first scan; thumbnails and maps of a camera take some dozens

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers that say the size and the components
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
MARKER = re.compile(rb"\xff+([^\x00\xff])")
MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # 00 follows an FF of data, D0 to D7 restart it


def coefficient_bytes(file: IO[bytes]) -> int:
    """Bytes that libjpeg keeps for each pixel; 0 where one scan holds all. The worst is said of what is unclear."""
    components = MOST_COMPONENTS
    file.seek(2)
    for _ in range(MOST_SEGMENTS):
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (*WITHOUT_LENGTH, 0x00, 0xFF):
            break
        length = int.from_bytes(head[2:], "big")
        if head[1] in FRAMES:
            components = min(file.read(6)[-1:][0], MOST_COMPONENTS) if length >= 8 else MOST_COMPONENTS
            if head[1] not in (0xC0, 0xC1):  # neither of the two sequential kinds that one scan may hold
                break
            file.seek(length - 8, 1)
        elif head[1] == START_OF_SCAN:
            return 0 if file.read(1) == bytes([components]) else COEFFICIENT_BYTES * components
        else:
            file.seek(max(length, 2) - 2, 1)
    return COEFFICIENT_BYTES * MOST_COMPONENTS if components == MOST_COMPONENTS else COEFFICIENT_BYTES * components


def require_few_scans(file: IO[bytes]) -> None:
    """Count the scans of the file's first picture. Raises ImageError for more than MOST_SCANS."""
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
