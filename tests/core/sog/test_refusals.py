"""Damaged, lying and impossible input: one FormatError that names the field, and no great allocation."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData, PlyElement

from tasks.core.errors import DestinationError, FormatError
from tasks.core.sog import pictures
from tasks.core.sog.convert import convert
from tasks.core.sog.pictures import decode_webp, encode_webp
from tasks.core.sog.reader import read_sog
from tasks.core.sog.writer import write_sog
from tests.core.sog.splats import terrain

COUNT = 300
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sog") / "a.sog"
    write_sog(terrain(COUNT, 1), path)
    return path.read_bytes()


def repacked(bundle: bytes, path: Path, changes: dict[str, bytes | None], method: int = zipfile.ZIP_STORED) -> Path:
    """The bundle with members replaced (or, with None, left out) at `path`."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as source, zipfile.ZipFile(path, "w", method) as target:
        members = {name: source.read(name) for name in source.namelist()} | changes
        for name, data in members.items():
            if data is not None:
                target.writestr(name, data)
    return path


def meta_of(bundle: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return dict(json.loads(archive.read("meta.json")))


@pytest.mark.parametrize("name", ["a.ply", "a.sog", "meta.json", "means_l.webp"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(name: str, bundle: bytes, tmp_path: Path) -> None:
    """Opening a FIFO waits for another program, for ever if need be."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    source = tmp_path / name if name != "means_l.webp" else tmp_path
    with pytest.raises(FormatError, match=f"{name} is no regular file"):
        convert(source, tmp_path / "out.ply")


def test_what_a_library_says_of_a_file_is_cut_and_printable(bundle: bytes, tmp_path: Path) -> None:
    """zipfile quotes the name in a member's header, which may be as long as the file."""
    at = bundle.index(b"PK\x03\x04") + 26  # length of the first member's name
    (tmp_path / "a.sog").write_bytes(bundle[:at] + b"\xff\x3f" + bundle[at + 2 :])
    with pytest.raises(FormatError, match=r"in a\.sog cannot be read: File name in directory .*…") as caught:
        read_sog(tmp_path / "a.sog")
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["uchar", "ushort", "int", "float"])
def test_a_compressed_ply_packs_into_32_bits(kind: str, tmp_path: Path) -> None:
    """Bytes in their place ended in an OverflowError."""
    data = (GOLDEN / "splat_transform.compressed.ply").read_bytes()
    packed = f"property {kind} packed_position".encode()
    (tmp_path / "a.compressed.ply").write_bytes(data.replace(b"property uint packed_position", packed))
    with pytest.raises(FormatError, match=r"'packed_position' is .*; a compressed \.ply packs into uint"):
        convert(tmp_path / "a.compressed.ply", tmp_path / "out.ply")


def test_bounds_of_colours_at_the_end_of_float32_are_refused_by_the_writer(tmp_path: Path) -> None:
    data = PlyData.read(str(GOLDEN / "splat_transform.compressed.ply"))
    chunk = data["chunk"].data.copy()
    chunk["max_r"] = 3.4e38
    elements = [PlyElement.describe(chunk, "chunk"), *(data[name] for name in ("vertex", "sh") if name in data)]
    PlyData(elements, byte_order="<").write(str(tmp_path / "a.compressed.ply"))
    with np.errstate(all="raise", under="ignore"), pytest.raises(FormatError, match=r"sh0 of .* are not finite"):
        convert(tmp_path / "a.compressed.ply", tmp_path / "out.sog")


def test_every_truncation_is_refused(bundle: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.sog"
    for length in range(0, len(bundle), max(1, len(bundle) // 200)):
        path.write_bytes(bundle[:length])
        with pytest.raises(FormatError, match=r"a\.sog"):
            read_sog(path)


def test_flipped_bits_are_refused_or_harmless(bundle: bytes, tmp_path: Path) -> None:
    """Harmless: dates and attributes in the zip's headers. Everything else is covered by checksums."""
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "a.sog", 0
    for _ in range(400):
        damaged = bytearray(bundle)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            assert len(read_sog(path)) == COUNT
        except FormatError:
            refused += 1
    assert refused > 300  # most of the file is content


def test_damaged_pictures_without_checksums_are_refused_or_decoded(bundle: bytes, tmp_path: Path) -> None:
    """An unbundled folder has no checksums: the decoder meets the damage itself."""
    rng = np.random.default_rng(1)
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.webp"))
    for i in range(300):
        path = tmp_path / names[i % len(names)]
        intact = path.read_bytes()
        damaged = bytearray(intact)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(damaged) + 1)] if i % 3 == 0 else damaged)
        try:
            assert len(read_sog(tmp_path)) == COUNT
        except FormatError:
            pass
        finally:
            path.write_bytes(intact)


def setter(*keys: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(meta: dict[str, Any]) -> None:
        part: Any = meta
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to

    return change


LIES = {
    "version 1": (setter("version", to=1), "version"),
    "no version": (lambda meta: meta.pop("version"), "means.shape"),
    "no means": (lambda meta: meta.pop("means"), "means"),
    "no file": (setter("quats", "files", to=[]), "quats.files"),
    "a path": (setter("quats", "files", to=["../quats.webp"]), "quats.files"),
    "unknown file": (setter("quats", "files", to=["other.webp"]), "other.webp"),
    "count of zero": (setter("count", to=0), "count"),
    "count too large": (setter("count", to=COUNT * 20), "count"),
    "count huge": (setter("count", to=10**12), "count"),
    "count a text": (setter("count", to="many"), "count"),
    "count a fraction": (setter("count", to=1.5), "count"),
    "short codebook": (setter("scales", "codebook", to=[0.0] * 255), "scales.codebook"),
    "codebook with null": (setter("sh0", "codebook", 3, to=None), "sh0.codebook.3"),
    "codebook with null before a text": (
        lambda meta: meta["sh0"]["codebook"].__setitem__(slice(0, 2), [None, "x"]),
        "sh0.codebook.0",
    ),
    "codebook beyond float32": (setter("sh0", "codebook", 0, to=1e39), "sh0.codebook.0"),
    "bounds that overflow": (setter("means", "maxs", 1, to=1e3), "means.maxs.1"),
    "bounds crossed": (setter("means", "mins", 2, to=50), "means.mins"),
    "two bounds": (setter("means", "mins", to=[0, 0]), "means.mins"),
    "four bands": (setter("shN", "bands", to=4), "shN.bands"),
    "other bands": (setter("shN", "bands", to=3), "shN_centroids.webp"),
    "palette too small": (setter("shN", "count", to=3), "shN"),
    "palette too large": (setter("shN", "count", to=60000), "shN_centroids.webp"),
    "palette beyond 16 bits": (setter("shN", "count", to=65537), "shN.count"),
    "not an object": (lambda meta: None, "a.sog"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_meta_is_refused(bundle: bytes, tmp_path: Path, name: str) -> None:
    change, named = LIES[name]
    meta = meta_of(bundle)
    change(meta)
    text = b"[1, 2]" if name == "not an object" else json.dumps(meta).encode()
    with pytest.raises(FormatError, match=named.replace(".", r"\.")):
        read_sog(repacked(bundle, tmp_path / "a.sog", {"meta.json": text}))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"version": NaN}', b"null"])
def test_a_meta_that_is_no_json_is_refused(bundle: bytes, tmp_path: Path, text: bytes) -> None:
    with pytest.raises(FormatError, match=r"meta\.json"):
        read_sog(repacked(bundle, tmp_path / "a.sog", {"meta.json": text}))


def webp(width: int, height: int, **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (width, height)).save(buffer, "WEBP", **how)
    return buffer.getvalue()


def test_pictures_of_the_wrong_kind_are_refused_before_they_are_decoded(
    bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(data: bytes, name: str) -> None:
        assert name != "quats.webp", "decoded a picture that should have been refused by its header"
        return decode_webp(data, name)

    monkeypatch.setattr(pictures, "decode_webp", decode)
    huge = bytearray(webp(4, 4, lossless=True))
    start = huge.index(b"VP8L") + 9
    huge[start : start + 4] = (16382 | 16382 << 14 | 1 << 28).to_bytes(4, "little")
    png = io.BytesIO()
    Image.new("RGBA", (20, 20)).save(png, "PNG")
    moving = io.BytesIO()
    pages = [Image.new("RGBA", (20, 20), color) for color in ("red", "blue")]
    pages[0].save(moving, "WEBP", save_all=True, append_images=pages[1:], lossless=True)
    for data in (
        bytes(huge),
        webp(4, 4, lossless=True),
        webp(20, 20, quality=50),
        png.getvalue(),
        moving.getvalue(),
        b"",
        b"RIFF",
    ):
        with pytest.raises(FormatError, match=r"quats\.webp"):
            read_sog(repacked(bundle, tmp_path / "a.sog", {"quats.webp": data}))


def test_a_member_that_unpacks_to_more_than_it_can_need_is_refused(bundle: bytes, tmp_path: Path) -> None:
    bomb = repacked(bundle, tmp_path / "a.sog", {"quats.webp": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 200_000
    with pytest.raises(FormatError, match=r"quats\.webp .* larger than"):
        read_sog(bomb)


def test_missing_members_and_files_are_refused(bundle: bytes, tmp_path: Path) -> None:
    for name in ("meta.json", "sh0.webp"):
        with pytest.raises(FormatError, match=name):
            read_sog(repacked(bundle, tmp_path / "a.sog", {name: None}))
    with pytest.raises(FormatError, match="does not exist"):
        read_sog(tmp_path / "none.sog")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"meta\.json"):
        read_sog(tmp_path / "empty")


def test_more_gaussians_than_the_limit_are_refused(bundle: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.sog"
    path.write_bytes(bundle)
    with pytest.raises(FormatError, match="at most 299"):
        read_sog(path, max_gaussians=299)


@pytest.mark.parametrize("name", ["means", "quats", "log_scales", "raw_opacities", "sh0", "shN"])
def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path: Path, name: str) -> None:
    gaussians = terrain(50)
    array = getattr(gaussians, name).copy()
    array.reshape(50, -1)[7, 0] = np.nan
    with pytest.raises(FormatError, match=rf"{name} of 1 of 50 .*number 7"):
        write_sog(replace(gaussians, **{name: array}), tmp_path / "a.sog")
    assert not list(tmp_path.iterdir())


def test_no_gaussians_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="0 Gaussians"):
        write_sog(terrain(5).take(np.zeros(0, np.intp)), tmp_path / "a.sog")


def test_convert_goes_both_ways_and_refuses_other_names(tmp_path: Path) -> None:
    write_sog(terrain(60, 2), tmp_path / "a.sog")
    assert convert(tmp_path / "a.sog", tmp_path / "b.ply").count == 60
    assert convert(tmp_path / "b.ply", tmp_path / "c.sog").count == 60
    assert read_sog(tmp_path / "c.sog").sh_degree == 2
    with pytest.raises(FormatError, match=r"only \.ply"):
        convert(tmp_path / "a.spz", tmp_path / "b.ply")
    for name in ("b.spz", "b.compressed.ply", "B.COMPRESSED.PLY"):
        with pytest.raises(DestinationError, match=r"only \.ply"):
            convert(tmp_path / "a.sog", tmp_path / name)
    for suffix in (".splat", ".ksplat", ".SPZ"):
        with pytest.raises(FormatError, match=rf"splat-transform scan{suffix} scan\.ply"):
            convert(tmp_path / f"scan{suffix}", tmp_path / "b.ply")
    with pytest.raises(DestinationError, match="does not exist"):
        convert(tmp_path / "a.sog", tmp_path / "none" / "b.ply")
    (tmp_path / "folder.sog").mkdir()
    with pytest.raises(DestinationError, match="cannot be written"):
        convert(tmp_path / "b.ply", tmp_path / "folder.sog")


def test_lossless_webp_keeps_colours_under_zero_alpha() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4)).astype(np.uint8)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(decode_webp(encode_webp(pixels, 1), "a"), pixels)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_that_cannot_be_bounded_is_refused(bundle: bytes, method: int, tmp_path: Path) -> None:
    """zipfile unpacks 4 kB at once: gigabytes, with bzip2."""
    path = repacked(bundle, tmp_path / "a.sog", {}, method)
    with pytest.raises(FormatError, match=rf"meta\.json in a\.sog is packed by method {method}; .* ordinary \.zip"):
        read_sog(path)


def test_a_damaged_member_is_refused(bundle: bytes, tmp_path: Path) -> None:
    path = repacked(bundle, tmp_path / "a.sog", {}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("meta.json")
    begin = member.header_offset + 30 + len("meta.json")
    data[begin + 12 : begin + 60] = b"\x5a" * 48
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"meta\.json in a\.sog cannot be read"):
        read_sog(path)


def test_a_name_that_is_not_utf_8_is_refused(bundle: bytes, tmp_path: Path) -> None:
    path = repacked(bundle, tmp_path / "a.sog", {"\u00fc.txt": b""})
    path.write_bytes(path.read_bytes().replace("\u00fc".encode(), b"\xff\xff"))
    with pytest.raises(FormatError, match=r"a\.sog is not a \.sog bundle"):
        read_sog(path)


def test_numbers_of_very_many_digits_are_refused(bundle: bytes, tmp_path: Path) -> None:
    meta = json.dumps(meta_of(bundle)).replace(f'"count": {COUNT}', f'"count": {"9" * 5000}')
    assert "9" * 5000 in meta
    with pytest.raises(FormatError, match=r"a\.sog"):
        read_sog(repacked(bundle, tmp_path / "a.sog", {"meta.json": meta.encode()}))
