"""The header of a .ply: checked against the file's size, and its comments, which may hold any bytes.

plyfile decodes a header as ASCII and compares line ends strictly, so it gets a plain one of the same length.
"""

import io
from pathlib import Path

from tasks.core.errors import FormatError

MAX_GAUSSIANS = 20_000_000  # about 5 GB at degree 3
_MAX_HEADER_BYTES = 1 << 16
_LEAST_TEXT = 2  # a digit, and a space or line break
_WIDTHS = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}


class PlyFile(io.BufferedReader):
    """A .ply file whose header reads as plain ASCII without comments; everything after it is the file's own.

    Raises FormatError if the header declares more than the file can contain, or lists, which no splat has.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and check its header."""
        super().__init__(io.FileIO(path))
        self._plain = b""
        try:
            lines, length = _header_lines(self, path.name)
            kept = [line for line in lines if line.split()[:1] not in (["comment"], ["obj_info"], [])]
            size = self.seek(0, io.SEEK_END)
            self.seek(0)
            _require_fitting(kept, length, size, path.name)
        except BaseException:
            self.close()
            raise
        self.comments = tuple(" ".join(line.split()[1:]) for line in lines if line.split()[:1] == ["comment"])
        shorter = length - len("\n".join(["ply", *kept, "end_header", ""]))
        kept[:1] = [line + " " * shorter for line in kept[:1]]  # spaces at the end of a line mean nothing
        self._plain = "\n".join(["ply", *kept, "end_header", ""]).encode("ascii", "replace")

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes; those of the header come from the plain one."""
        at = self.tell()
        data = super().read(size)
        ahead = self._plain[at : at + len(data)] if at < len(self._plain) else b""
        return ahead + data[len(ahead) :]


def _header_lines(file: io.BufferedReader, name: str) -> tuple[list[str], int]:
    """Lines between the first and `end_header`, and the header's length in bytes.

    Lines end with LF, CRLF or, as on old Macs, with CR; a CR inside of a comment ends nothing.
    """
    head = file.read(_MAX_HEADER_BYTES)
    if head[:3] != b"ply" or head[3:4] not in (b"\n", b"\r", b" "):
        raise FormatError(f"{name} is not a splat .ply: it does not begin with the line 'ply'.")
    end = b"\r" if head[3:4] == b"\r" and head[4:5] != b"\n" else b"\n"
    lines: list[str] = []
    at = 0
    while (stop := head.find(end, at)) >= 0:
        line = head[at:stop].decode("ascii", "replace").strip()
        at = stop + 1
        if line == "end_header":
            return lines[1:], at
        lines.append(line)
    raise FormatError(f"{name} is not a splat .ply: no header ends within {_MAX_HEADER_BYTES:,} bytes.")


def _require_fitting(lines: list[str], length: int, size: int, name: str) -> None:
    """Raise FormatError unless the header's rows fit into the file's `size` in bytes."""
    binary, count, least, names = True, 0, length, set[str]()
    for line in lines:
        words = line.split()
        if words[0] == "format":
            binary = "ascii" not in words
        elif words[0] == "element":
            if len(words) != 3 or not words[2].isdecimal() or len(words[2]) > 12:
                raise FormatError(f"{name}: '{line[:80]}' of the header names no number of rows.")
            count, names = int(words[2]), set()
            if words[1] == "vertex" and count > MAX_GAUSSIANS:
                raise FormatError(f"{name}: vertex is {count:,}; at most {MAX_GAUSSIANS:,} Gaussians can be read.")
        elif words[0] == "property":
            if "list" in words and not count:
                continue  # some exporters declare zero faces
            if "list" in words:
                raise FormatError(f"{name} has the list '{words[-1][:80]}', so it is a mesh and not a splat .ply.")
            width = _LEAST_TEXT if not binary else _WIDTHS.get(words[1] if len(words) == 3 else "", 0)
            if not width or words[-1] in names:
                raise FormatError(f"{name}: '{line[:80]}' of the header is no property, or is there twice.")
            names.add(words[-1])
            least += count * width
    if least - (not binary) > size:  # text may lack its last line break
        raise FormatError(f"{name} has {size:,} bytes; its header promises {least:,}. The file is cut short.")
