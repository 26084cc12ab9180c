"""Headers agree with the result of the photos stage, which decodes everything."""

import os
import zipfile
from pathlib import Path

import pytest

from tasks.core.errors import PhotosError
from tasks.core.photos import headers
from tasks.core.photos.archive import unpack
from tasks.core.photos.headers import read_headers
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tests.core.photos.test_ingest import encoded, exif, folder_of

FILES = {
    "b 10.jpg": encoded(1, exif=exif(time="2024:05:06 07:08:03")),
    "b 9.jpg": encoded(2, exif=exif(time="2024:05:06 07:08:01", orientation=6)),  # stands upright when it is turned
    "sub/a.png": encoded(3, "PNG", exif=exif(time="2024:05:06 07:08:02")),
    "c.webp": encoded(4, "WEBP", exif=exif(time="2024:05:06 07:08:04")),
}


def test_headers_say_what_the_photos_stage_finds(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", FILES)
    found = read_headers(folder)
    photos = ingest(folder, tmp_path / "out", PhotosOptions(), ignore_progress).photos
    bare = {"sha256": "", "name": ""}
    assert [photo.model_copy(update=bare) for photo in found.photos] == [
        photo.model_copy(update=bare) for photo in photos
    ]
    assert [Path(photo.name).stem for photo in found.photos] == [Path(photo.name).stem for photo in photos]
    assert (found.photos[0].width, found.photos[0].height) == (72, 96)
    assert found.unreadable == 0


def test_an_archive_is_read_as_its_folder_would_be(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", {**FILES, "notes.txt": b"none"})
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    assert read_headers(tmp_path / "photos.zip") == read_headers(folder)


def test_names_of_any_bytes_have_headers_too(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", FILES)
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg")).write_bytes(encoded(5))
    found = read_headers(folder)
    assert "caf\ufffd.jpg" in [photo.name for photo in found.photos]
    assert (len(found.photos), found.unreadable) == (len(FILES) + 1, 0)


def test_what_has_no_header_is_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", {**FILES, "text.jpg": b"no photo", "raw.dng": b"raw", "empty.jpg": b""})
    found = read_headers(folder)
    assert (len(found.photos), found.unreadable) == (len(FILES), 3)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("photos.zip", b"PK no archive", "not a complete .zip"),
        ("photo.jpg", encoded(1), "is one file"),
    ],
)
def test_what_is_no_place_for_photos_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotosError, match=says):
        read_headers(tmp_path / name)


def test_a_damaged_member_damns_the_archive_as_the_photos_stage_has_it(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", encoded(1))
        [member] = archive.infolist()
    content = bytearray(path.read_bytes())
    begin = member.header_offset + len(member.FileHeader())
    content[begin : begin + 20] = b"\xff" * 20  # no deflate stream begins so
    path.write_bytes(content)
    with pytest.raises(PhotosError, match="is not a complete"):
        read_headers(path)
    with pytest.raises(PhotosError, match="is not a complete"):
        unpack(path, tmp_path / "out", PhotosOptions())


def test_a_member_packed_by_an_unknown_method_damns_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", encoded(1))
    content = bytearray(path.read_bytes())
    content[8] = content[content.rindex(b"PK\x01\x02") + 10] = 98  # PPMd, in the member's own header and the directory
    path.write_bytes(content)
    with pytest.raises(PhotosError, match="is not a complete"):
        unpack(path, tmp_path / "out", PhotosOptions())


def test_an_encrypted_member_damns_the_archive_as_the_photos_stage_has_it(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", encoded(1))
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the member's own header, and in the directory
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(PhotosError, match="is encrypted"):
        read_headers(path)


def test_members_without_a_header_cost_no_more_than_their_archive_and_a_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would be read whole in search of one: 200 kB that unpack to gigabytes."""
    size, count = 4 << 20, 30
    monkeypatch.setattr(headers, "WHOLE_FREE_BYTES", 3 * size)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(f"{number}.jpg", bytes(size))
    read, total = zipfile.ZipExtFile.read, list[int]()

    def counted(member: zipfile.ZipExtFile, wanted: int = -1) -> bytes:
        data = read(member, wanted)
        total.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    found = read_headers(tmp_path / "a.zip", PhotosOptions(max_archive_ratio=100_000))
    assert found.unreadable == count
    assert size < sum(total) <= 3 * size + (tmp_path / "a.zip").stat().st_size + count * headers.HEADER_BYTES
