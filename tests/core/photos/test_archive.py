"""Archives that are damaged or meant to do damage: photos, or one PhotosError, and nothing beside the folder."""

import io
import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.core.errors import DiskFullError, PhotosError, UnstorableNameError
from tasks.core.photos import archive as archive_module
from tasks.core.photos.archive import check_archive, unpack
from tasks.core.photos.files import natural_order
from tasks.core.photos.headers import read_headers
from tasks.core.photos.options import PhotosOptions
from tasks.core.safe_names import TakenNames, safe_name, storable
from tests.core.photos.test_ingest import encoded, run, three, zip_of
from tests.core.test_safe_names import names

METHODS = {"stored": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED, "lzma": zipfile.ZIP_LZMA}

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
    assert "is not a complete" in (refusal_or_none(lambda: read_headers(path)) or "")


def test_a_member_packed_by_bzip2_is_refused(tmp_path: Path) -> None:
    """zipfile unpacks 4 kB of it at a time: to 4 GB, where they are zeros."""
    zip_of(tmp_path / "photos.zip", {"a.jpg": encoded(1)}, zipfile.ZIP_BZIP2)
    for read in (read_headers, checked, lambda path: unpack(path, tmp_path / "out", PhotosOptions())):
        with pytest.raises(PhotosError, match=r"a\.jpg' is packed by bzip2: pack it again"):
            read(tmp_path / "photos.zip")


def test_a_name_that_is_not_the_utf_8_it_says_is_one_sentence(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "photos.zip", {"ü.jpg": encoded(1)})
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xff"))
    for read in (read_headers, lambda path: unpack(path, tmp_path / "out", PhotosOptions())):
        with pytest.raises(PhotosError, match=r"photos\.zip holds a file name that is not valid utf-8"):
            read(path)


HARMLESS = {
    "digits": ("7" * 5000 + ".jpg", "is longer than 884 bytes"),
    "a long part": ("a" * 260 + ".jpg", "has a part of more than 255 bytes"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_name_that_cannot_be_stored_costs_its_photo_alone(case: str, tmp_path: Path) -> None:
    name, reason = HARMLESS[case]
    path = zip_of(tmp_path / "photos.zip", {name: encoded(9), f"{name}.txt": b"x", **three()})
    checked(path)
    assert read_headers(path).unreadable == 1
    photos = run(path, tmp_path / "out")
    assert [photo.name for photo in photos.photos] == ["good0.jpg", "good1.jpg", "good2.jpg"]
    [rejected] = photos.rejected
    assert reason in rejected.reason
    assert len(rejected.name) < 200


@pytest.mark.parametrize("case", HARMLESS)
def test_an_archive_of_such_photos_alone_is_one_sentence(case: str, tmp_path: Path) -> None:
    name, reason = HARMLESS[case]
    path = zip_of(tmp_path / "photos.zip", {name: encoded(9)})
    for read in (read_headers, checked, lambda path: run(path, tmp_path / "out")):
        with pytest.raises(PhotosError, match=f"No photo in photos.zip can be used; .*{reason}"):
            read(path)


def test_twenty_thousand_members_of_one_name_are_named_at_once(tmp_path: Path) -> None:
    taken = TakenNames()
    looked = 0

    class Counted(set[str]):
        def __contains__(self, name: object) -> bool:
            nonlocal looked
            looked += 1
            return super().__contains__(name)

    taken._files = Counted()
    assert len({taken.take("strip/a.jpg") for _ in range(20_000)}) == 20_000
    assert looked < 200_000


def test_a_member_larger_than_photos_are_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.photos.files.MOST_FILE_BYTES", 20_000)
    files = three()
    assert max(len(content) for content in files.values()) < 20_000
    path = zip_of(tmp_path / "photos.zip", {**files, "large.jpg": encoded(9) + bytes(20_000)})
    assert read_headers(path).unreadable == 1
    photos = run(path, tmp_path / "out")
    assert [(photo.name, photo.reason) for photo in photos.rejected] == [
        ("large.jpg", "0.0 GB in one file, the limit is 0.0 GB; export it as JPEG")
    ]


def test_free_space_is_looked_at_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = three()
    path = zip_of(tmp_path / "photos.zip", {**files, "film.mp4": bytes(50_000)})
    needed = sum(len(content) for content in files.values())  # other files are not unpacked
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(archive_module, "free_bytes", lambda folder: needed - 1)
    with pytest.raises(DiskFullError, match="are needed"):
        unpack(path, tmp_path / "out", PhotosOptions())
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(archive_module, "free_bytes", lambda folder: needed)
    unpack(path, tmp_path / "out", PhotosOptions())


def test_many_small_members_together_are_a_bomb(tmp_path: Path) -> None:
    """Each is below the size from which its own ratio counts."""
    path = zip_of(tmp_path / "photos.zip", {f"{i}.jpg": bytes(1 << 20) for i in range(12)}, zipfile.ZIP_DEFLATED)
    for read in (read_headers, checked, lambda path: unpack(path, tmp_path / "out", PhotosOptions())):
        with pytest.raises(PhotosError, match="looks like a zip bomb: it unpacks to more than 200 times"):
            read(path)


def test_a_pipe_that_is_called_an_archive_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photos.zip")
    for read in (read_headers, lambda path: run(path, tmp_path / "out")):
        with pytest.raises(PhotosError, match="neither a folder nor a regular file"):
            read(tmp_path / "photos.zip")


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
        assert len(found) == sum(map(can_be_stored, wanted))


def can_be_stored(name: str) -> bool:
    try:
        safe_name(storable(f"{name}.jpg"))
    except UnstorableNameError:
        return False
    return True


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
