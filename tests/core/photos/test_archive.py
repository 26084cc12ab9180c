"""Archives that are damaged or meant to do damage: photos, or one PhotosError, and nothing beside the folder."""

import io
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.errors import PhotosError
from tasks.core.photos.archive import check_archive, unpack
from tasks.core.photos.files import natural_order
from tasks.core.photos.headers import read_headers
from tasks.core.photos.options import PhotosOptions
from tests.core.photos.test_ingest import encoded, zip_of
from tests.core.test_safe_names import names

METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "bz2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}

few = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@cache
def archive_bytes(method: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", METHODS[method]) as archive:
        for number in range(2):
            archive.writestr(f"strip/{number}.jpg", encoded(number))
    return buffer.getvalue()


def zip_of_members(path: Path, wanted: list[str]) -> None:
    """An archive of photos with these names as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(wanted):
            member = zipfile.ZipInfo()
            member.filename = name  # which ZipInfo itself would have tidied up
            archive.writestr(member, encoded(number))


def unpacked(path: Path, folder: Path) -> dict[str, bytes]:
    """What is below `folder/out`, and nothing else is new."""
    (folder / "out").mkdir()
    before = set(folder.rglob("*"))
    unpack(path, folder / "out", PhotosOptions())
    assert all(new.is_relative_to(folder / "out") for new in set(folder.rglob("*")) - before)
    out = folder / "out"
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}


def refusal_or_none(read: Callable[[], object]) -> str | None:
    """What the PhotosError says; any other exception is the test's."""
    try:
        read()
    except PhotosError as error:
        return str(error)
    return None


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_member_is_one_sentence(method: str, tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    content = bytearray(archive_bytes(method))
    begin = content.index(b"strip/0.jpg") + len("strip/0.jpg")
    content[begin + 12 : begin + 60] = b"\x5a" * 48
    path.write_bytes(content)
    with pytest.raises(PhotosError, match=r"photos\.zip is not a complete \.zip archive"):
        unpack(path, tmp_path / "out", PhotosOptions())
    said = refusal_or_none(lambda: read_headers(path))  # bz2's error alone counts as a photo without a header
    assert said is None if method == "bz2" else "is not a complete" in (said or "")


def test_a_name_that_is_not_the_utf_8_it_says_is_one_sentence(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "photos.zip", {"ü.jpg": encoded(1)})
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xff"))
    for read in (read_headers, lambda path: unpack(path, tmp_path / "out", PhotosOptions())):
        with pytest.raises(PhotosError, match=r"photos\.zip holds a file name that is not valid utf-8"):
            read(path)


def test_a_name_of_very_many_digits_is_one_sentence(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "photos.zip", {f"{'7' * 5000}.jpg": encoded(1)})
    for read in (read_headers, lambda path: unpack(path, tmp_path / "out", PhotosOptions())):
        with pytest.raises(PhotosError, match=r"7…' is longer than 900 bytes"):
            read(path)


def test_natural_order_needs_no_numbers() -> None:
    wanted = ["p1.jpg", "p2.jpg", "p02.jpg", "p9.jpg", "p10.jpg", f"p{'9' * 5000}.jpg", "q.jpg"]
    assert sorted(sorted(wanted, reverse=True), key=natural_order) == [
        "p1.jpg", "p02.jpg", "p2.jpg", "p9.jpg", "p10.jpg", f"p{'9' * 5000}.jpg", "q.jpg",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_the_same_name_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    zip_of_members(path, ["a.jpg", "a.jpg", "A.jpg", "a.jpg/b.jpg"])
    found = unpacked(path, tmp_path)
    assert found == {
        name: encoded(number) for number, name in enumerate(("a.jpg", "a-2.jpg", "A-3.jpg", "a.jpg-2/b.jpg"))
    }


def test_a_check_beforehand_refuses_what_unpacking_refuses(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    zip_of_members(path, ["a.jpg", "b/../../c.jpg"])
    said = {refusal_or_none(lambda: checked(path)), refusal_or_none(lambda: unpacked(path, tmp_path))}
    assert said == {
        "photos.zip is unsafe: The file name 'b/../../c.jpg' leads out of its folder. Pack it again without that file."
    }


def test_folders_in_an_archive_do_not_count_as_its_files(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    zip_of_members(path, ["strip/", *(f"strip/{number}.jpg" for number in range(3))])
    at_the_limit = PhotosOptions(max_archive_members=3)
    check_archive(path, at_the_limit)
    unpack(path, tmp_path / "out", at_the_limit)


def checked(path: Path) -> None:
    check_archive(path, PhotosOptions())


edits_of_bytes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)


@few
@given(st.sampled_from(sorted(METHODS)), edits_of_bytes, st.floats(0.05, 1))
def test_any_damage_is_photos_or_an_error_in_words(method: str, edits: list[tuple[float, int]], cut: float) -> None:
    content = bytearray(archive_bytes(method))
    for place, value in edits:
        content[int(place * len(content))] = value
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "photos.zip"
        path.write_bytes(content[: int(cut * len(content))])
        for read in (lambda: read_headers(path), lambda: unpacked(path, Path(temporary))):
            refusal = refusal_or_none(read)
            assert refusal is None or "photos.zip" in refusal


@pytest.mark.filterwarnings("ignore:Duplicate name")
@few
@given(st.lists(names.filter(lambda name: "\0" not in name), min_size=1, max_size=4))
def test_whatever_the_members_are_called_nothing_leaves_the_folder(wanted: list[str]) -> None:
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "photos.zip"
        zip_of_members(path, [f"{name}.jpg" for name in wanted])
        try:
            found = unpacked(path, Path(temporary))
        except PhotosError:
            return
        assert len(found) == len(wanted)


@pytest.mark.parametrize(("name", "says"), [("", "is empty"), ("../escaped.jpg", "leads out of its folder")])
@pytest.mark.parametrize(
    "check", [check_archive, lambda path, options: unpack(path, path.parent / "out", options)], ids=["check", "unpack"]
)
def test_a_name_that_no_folder_can_hold_is_one_sentence(
    check: Callable[[Path, PhotosOptions], None], name: str, says: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("xxxxxxxxxxxxxx", b"x")
        archive.filelist[0].filename = name  # zipfile itself writes no empty name
    with pytest.raises(PhotosError, match=says):
        check(tmp_path / "photos.zip", PhotosOptions())
