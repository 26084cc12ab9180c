"""Photos that come in a .zip: the same as from its folder, and what an archive must not do."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.errors import PhotosError
from tasks.core.photos.options import PhotosOptions
from tests.core.photos.test_ingest import encoded, folder_of, run, three, zip_of


def test_zip_gives_the_same_as_its_folder(tmp_path: Path) -> None:
    files = {"set/a.jpg": encoded(1), "set/b.png": encoded(2, "PNG"), "c.heic": encoded(3, "HEIF"), "n.txt": b"x"}
    from_folder = run(folder_of(tmp_path / "in", files), tmp_path / "out1")
    from_zip = run(zip_of(tmp_path / "in.zip", files), tmp_path / "out2")
    assert from_folder == from_zip
    assert sorted(path.name for path in (tmp_path / "out2").iterdir()) == ["images", "photos.json"]


UNSAFE = [
    "../evil.jpg",
    "a/../../evil.jpg",
    "/evil.jpg",
    "C:/evil.jpg",
    "C:evil.jpg",
    "..\\evil.jpg",
    "\\\\host\\evil.jpg",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_member_outside_of_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PhotosError, match="unsafe"):
        run(zip_of(tmp_path / "in.zip", {**three(), name: encoded(9)}), tmp_path / "x/out")
    assert not list(tmp_path.rglob("*evil*"))
    assert list((tmp_path / "x/out").iterdir()) == []


def test_symlink_member_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(PhotosError, match="symbolic link"):
        run(tmp_path / "in.zip", tmp_path / "out")


def _lying(path: Path, declared_bytes: int) -> Path:
    """20 MB of zeros whose headers declare less."""
    zip_of(path, {"a.jpg": bytes(20_000_000)}, zipfile.ZIP_DEFLATED)
    data = path.read_bytes().replace(struct.pack("<I", 20_000_000), struct.pack("<I", declared_bytes))
    path.write_bytes(data)
    return path


BOMBS: dict[str, tuple[Callable[[Path], Path], PhotosOptions, str]] = {
    "ratio": (
        lambda path: zip_of(path, {"a.jpg": bytes(20_000_000)}, zipfile.ZIP_DEFLATED),
        PhotosOptions(),
        "zip bomb",
    ),
    "size": (lambda path: zip_of(path, three()), PhotosOptions(max_archive_gib=1e-6), "the limit is 1e-06 GiB"),
    "members": (
        lambda path: zip_of(path, {f"{i}.txt": b"" for i in range(11)}),
        PhotosOptions(max_archive_members=10),
        "holds 11 files, the limit is 10",
    ),
    "lying header": (lambda path: _lying(path, 1000), PhotosOptions(), "not a complete .zip|zip bomb"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_zip_bomb_is_refused(case: str, tmp_path: Path) -> None:
    make, options, message = BOMBS[case]
    with pytest.raises(PhotosError, match=message):
        run(make(tmp_path / "in.zip"), tmp_path / "out", options)
    assert list((tmp_path / "out").iterdir()) == []


def test_corrupt_and_encrypted_zip(tmp_path: Path) -> None:
    whole = zip_of(tmp_path / "in.zip", three()).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.zip").write_bytes(b"not a zip")
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF  # in the first member's data: its checksum no longer fits
    (tmp_path / "flipped.zip").write_bytes(flipped)
    locked = bytearray(whole)
    locked[whole.index(b"PK\x01\x02") + 8] |= 1  # the flag of an encrypted member, in the directory
    (tmp_path / "locked.zip").write_bytes(locked)
    for name, message in (
        ("cut", "not a complete"),
        ("text", "not a complete"),
        ("flipped", "not a complete"),
        ("locked", "encrypted"),
    ):
        with pytest.raises(PhotosError, match=message):
            run(tmp_path / f"{name}.zip", tmp_path / "out")


def test_one_file_that_is_no_archive(tmp_path: Path) -> None:
    folder_of(tmp_path, {"a.jpg": encoded(1)})
    with pytest.raises(PhotosError, match="is one file"):
        run(tmp_path / "a.jpg", tmp_path / "out")
