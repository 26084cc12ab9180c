"""Damaged files: for any bytes a reader returns Gaussians or raises FormatError, soon and in little memory."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.errors import FormatError
from tasks.core.gaussians import Gaussians
from tasks.core.ply import write_ply
from tasks.core.sog.convert import read_splat
from tasks.core.sog.writer import write_sog
from tests.core.sog.splats import terrain

COUNT = 70
MOST_BYTES = 24_000_000  # no file here holds more than 100 kB; 300 of its Gaussians decoded are less than 1 MB
GOLDEN = Path(__file__).parent / "golden"

# A bounded number of steps for each example is what hypothesis counts, not seconds: five tests may share the machine.
few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6)
cuts = st.floats(0.05, 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@cache
def plain_ply() -> bytes:
    return _written("a.ply", lambda path: write_ply(terrain(COUNT, 1), path))


@cache
def bundle() -> bytes:
    return _written("a.sog", lambda path: write_sog(terrain(COUNT, 1), path))


def _written(name: str, write: Callable[[Path], None]) -> bytes:
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def edited(data: bytes, changes: list[tuple[float, int]], cut: float) -> bytes:
    changed = bytearray(data)
    for place, value in changes:
        changed[int(place * len(changed))] = value
    return bytes(changed[: int(cut * len(changed))])


def survives(name: str, data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        tracemalloc.start()
        read: Gaussians | FormatError
        try:
            with np.errstate(all="raise", under="ignore"):  # a warning here is an accident elsewhere
                read = read_splat(path).gaussians
        except FormatError as error:
            read = error
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert isinstance(read, Gaussians) or name in str(read) or "webp" in str(read)
        assert peak < MOST_BYTES


@few
@given(edits, cuts)
def test_edited_plain_ply(changes: list[tuple[float, int]], cut: float) -> None:
    survives("a.ply", edited(plain_ply(), changes, cut))


@few
@given(st.data())
def test_edited_ply_header(data: st.DataObject) -> None:
    header, _, body = plain_ply().partition(b"end_header\n")
    words = header.split(b" ")
    new = st.sampled_from(
        [b"list", b"ascii", b"double", b"-1", b"999999999999999999", b"19999999", b"x", b"uchar", b""]
    )
    for _ in range(data.draw(st.integers(1, 4))):
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(new | st.binary(max_size=5))
    survives("a.ply", b" ".join(words) + b"end_header\n" + body)


@few
@given(edits, cuts)
def test_edited_compressed_ply(changes: list[tuple[float, int]], cut: float) -> None:
    survives("a.ply", edited((GOLDEN / "splat_transform.compressed.ply").read_bytes(), changes, cut))


@few
@given(edits, cuts)
def test_edited_sog(changes: list[tuple[float, int]], cut: float) -> None:
    survives("a.sog", edited(bundle(), changes, cut))


@few
@given(st.data())
def test_edited_meta(data: st.DataObject) -> None:
    """Any value of meta.json replaced by any other, in both versions of the format."""
    with zipfile.ZipFile(io.BytesIO(bundle())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    meta: Any = json.loads(members["meta.json"])
    if data.draw(st.booleans()):
        del meta["version"]
        meta["means"]["shape"] = [COUNT, 3]
        for part, channels in (("scales", 3), ("sh0", 4)):
            meta[part] |= {"mins": [-1.0] * channels, "maxs": [1.0] * channels}
        meta["shN"] |= {"mins": -1.0, "maxs": 1.0}
    for _ in range(data.draw(st.integers(0, 2))):
        part = meta
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.booleans()):
                break
            part = part[key]
        part[key] = data.draw(json_values)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (members | {"meta.json": json.dumps(meta).encode()}).items():
            archive.writestr(name, content)
    survives("a.sog", buffer.getvalue())


@few
@given(st.binary(max_size=400), st.sampled_from(["a.ply", "a.sog"]))
def test_any_bytes(data: bytes, name: str) -> None:
    survives(name, data if name == "a.sog" else b"ply\n" + data)
