"""Splats of others, .ply, .compressed.ply, .sog of both versions, unbundled and streamed SOG: Gaussians, or a sentence.

What can be read is also converted: what a viewer gets holds finite numbers, or nothing is written.
"""

import io
import json
import random
import struct
import zipfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tasks.core.errors import FormatError, InputError
from tasks.core.gaussians import Gaussians
from tasks.core.ply import write_ply
from tasks.core.sog.convert import convert, read_splat
from tasks.core.sog.layout import LOD_META_FILE, META_FILE
from tasks.core.sog.writer import write_sog
from tests.core.sog.splats import terrain

SUITE_ROUNDS = 150
COUNT = 70
LONGEST_MESSAGE = 1_000  # characters
CONVERTED_SHARE = 0.05  # of the splats that could be read: writing costs a hundred times as much
GOLDEN = Path(__file__).parents[1] / "core/sog/golden"
HEADER_WORDS = (
    *(b"list", b"ascii", b"binary_big_endian", b"double", b"uchar", b"-1", b"0", b"19999999", b"99999999999999999999"),
    *(
        b"element",
        b"property",
        b"vertex",
        b"packed_position",
        b"f_rest_44",
        b"end_header",
        b"comment",
        b"comment antialiased",
        b"\r",
        b"",
        b"\xff",
    ),
)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 3, 65536, 65537, 20_000_001, 2**63, 10**30, 1e300, -1e300, float("nan"), float("inf")),
    *("", "x", "../../x", "means_l.webp", "shN_labels.webp", "meta.json", "a" * 10_000, [], {}, [[[]]], [1e38] * 256),
)
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def damage_splat(chance: random.Random, folder: Path) -> None:
    """One round: a splat of some format, with bytes, header words, members or values of meta.json replaced."""
    path = chance.choice([_ply, _compressed_ply, _bundle, _bundle, _unbundled, _streamed])(chance, folder)
    before = sorted(folder.rglob("*"))
    try:
        with np.errstate(all="raise", under="ignore"):  # a warning here is an accident elsewhere
            read = read_splat(path).gaussians
    except FormatError as error:
        _require_short(error)
        return
    assert isinstance(read, Gaussians)
    assert sorted(folder.rglob("*")) == before, "reading wrote something"
    if chance.random() > CONVERTED_SHARE:
        return
    target = folder / chance.choice(["converted.ply", "converted.sog"])
    try:
        convert(path, target)
    except InputError as error:
        _require_short(error)
        assert not target.exists(), "what is refused is not written"
        return
    converted = read_splat(target).gaussians
    assert len(converted) == len(read)


ROUND = damage_splat


def _require_short(error: InputError) -> None:
    if len(str(error)) > LONGEST_MESSAGE:
        raise AssertionError(f"a message of {len(str(error))} characters: {str(error)[:1000]!r}")


def _ply(chance: random.Random, folder: Path) -> Path:
    return _put(folder / "a.ply", _damaged_ply(chance, _plain(chance.choice([0, 3]))))


def _compressed_ply(chance: random.Random, folder: Path) -> Path:
    data = (GOLDEN / "splat_transform.compressed.ply").read_bytes()
    return _put(folder / "a.compressed.ply", _damaged_ply(chance, data))


def _bundle(chance: random.Random, folder: Path) -> Path:
    members = _damaged_members(chance)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", chance.choice(PACKED)) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    data = buffer.getvalue()
    return _put(folder / "a.sog", _damaged_bytes(chance, data) if chance.random() < 0.5 else data)


def _unbundled(chance: random.Random, folder: Path) -> Path:
    for name, content in _damaged_members(chance).items():
        _put(folder / name, content)
    return folder / META_FILE


def _streamed(chance: random.Random, folder: Path) -> Path:
    """One box in two levels, one of them in parts; only its list and its first file are damaged."""
    (folder / "0_0").mkdir()
    (folder / "1_0").mkdir()
    for name, content in _damaged_members(chance).items():
        _put(folder / "0_0" / name, content)
    for name, content in _members().items():
        _put(folder / "1_0" / name, content)
    half = COUNT // 2
    parts = [{"file": 1, "offset": start, "count": half} for start in (0, half)]
    leaves: list[Any] = [{"lods": {"0": {"file": 0, "offset": 0, "count": COUNT}, "1": parts[0]}}]
    leaves.append({"lods": {"1": parts[1]}})
    meta: Any = {"version": 1, "lodLevels": 2, "filenames": ["0_0/meta.json", "1_0/meta.json"]}
    meta["tree"] = {"children": leaves}
    for _ in range(chance.choice([0, 1, 2])):
        _damage_meta(chance, meta)
    return _put(folder / LOD_META_FILE, json.dumps(meta).encode())


def _put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _damaged_ply(chance: random.Random, data: bytes) -> bytes:
    header, end, body = data.partition(b"end_header\n")
    if chance.random() < 0.5:
        words = header.split(b" ")
        for _ in range(chance.randint(1, 3)):
            words[chance.randrange(len(words))] = chance.choice(HEADER_WORDS)
        header = b" ".join(words)
    if chance.random() < 0.2:
        lines = header.split(b"\n")
        lines.insert(chance.randrange(1, len(lines)), chance.choice(lines))
        header = b"\n".join(lines)
    return header + end + (_damaged_bytes(chance, body) if chance.random() < 0.5 else body)


def _damaged_bytes(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed))
        new = chance.choice(
            [chance.randbytes(1), struct.pack("<f", chance.choice([np.nan, np.inf, 3e38])), b"\xff" * 4]
        )
        changed[at : at + len(new)] = new
    return bytes(changed[: chance.randrange(1, len(changed))] if chance.random() < 0.2 else changed)


def _damaged_members(chance: random.Random) -> dict[str, bytes]:
    members = dict(_members())
    meta: Any = json.loads(members[META_FILE])
    if chance.random() < 0.4:
        _make_version_1(meta)
    for _ in range(chance.choice([0, 1, 1, 2])):
        _damage_meta(chance, meta)
    members[META_FILE] = json.dumps(meta).encode()
    if chance.random() < 0.5:
        name = chance.choice(list(members))
        members[name] = _damaged_bytes(chance, members[name])
    if chance.random() < 0.1:
        del members[chance.choice(list(members))]
    if chance.random() < 0.2:
        one, other = chance.choice(list(members)), chance.choice(list(members))
        members[one] = members[other]
    return members


def _make_version_1(meta: Any) -> None:
    del meta["version"]
    meta["means"]["shape"] = [COUNT, 3]
    for part, channels in (("scales", 3), ("sh0", 4)):
        meta[part] |= {"mins": [-1.0] * channels, "maxs": [1.0] * channels}
    meta["shN"] |= {"mins": -1.0, "maxs": 1.0}


def _damage_meta(chance: random.Random, meta: Any) -> None:
    part = meta
    while True:
        key = chance.choice(list(part) if isinstance(part, dict) else range(len(part)))
        if not isinstance(part[key], dict | list) or not part[key] or chance.random() < 0.2:
            part[key] = deepcopy(chance.choice(VALUES))  # a later change of it is of this round alone
            return
        part = part[key]


@cache
def _plain(degree: int) -> bytes:
    with TemporaryDirectory() as folder:
        write_ply(terrain(COUNT, degree), Path(folder) / "a.ply")
        return (Path(folder) / "a.ply").read_bytes()


@cache
def _members() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        write_sog(terrain(COUNT, 1), Path(folder) / META_FILE)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
