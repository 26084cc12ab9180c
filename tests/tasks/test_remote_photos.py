"""Photos that lie on S3."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import photos
from tasks.core.errors import PhotosError
from tasks.core.photos.files import is_photo_name
from tasks.core.photos.options import PhotosOptions
from tasks.core.photoset import PhotoSet
from tasks.core.progress import Progress
from tasks.core.refs import RunContext
from tasks.core.storage import S3Folder, StoredObject
from tasks.photos import ingest_photos
from tasks.places.sources import RemotePhotos, capture_name, local_names, open_source
from tasks.running.stage import open_output
from tasks.sfm import is_given_model
from tests.support.s3_server import S3Server


def photo(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((640, 480)).save(file, "JPEG")
    return file.getvalue()


LONG = "/".join(["d" * 220] * 4 + ["x.jpg"])  # a key may have 1024 bytes, a stored name fewer
PHOTOS = {f"{name}.jpg": photo(seed) for seed, name in enumerate(("photo1", "photo2", "sub/Süd 3"))}


@pytest.fixture
def bucket(s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Folder:
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))
    return S3Folder(s3_environment.client(), s3_environment.new_bucket())


@pytest.fixture
def uploaded(bucket: S3Folder) -> str:
    """A capture as it is uploaded: photos, and a marker that is none."""
    for name, content in PHOTOS.items():
        bucket.write(f"uploads/north field/{name}", content)
    bucket.write("uploads/north field/READY.json", b"{}")
    return f"s3://{bucket.bucket}/uploads/north field/"


def remote(uri: str, workspace: Path) -> RemotePhotos:
    source = open_source(uri, str(workspace))
    assert isinstance(source, RemotePhotos)
    return source


def test_a_folder_on_s3_is_ingested_once(uploaded: str, bucket: S3Folder, tmp_path: Path) -> None:
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    first = ingest_photos.fn(uploaded, PhotosOptions(), context)
    assert (first.capture, first.usable, first.rejected, first.cached) == ("north field", 3, 0, False)
    folder = open_output(first, context)
    assert [entry.name for entry in PhotoSet.load(folder).photos] == list(PHOTOS)
    assert not [entry for entry in folder.iterdir() if entry.name.startswith(".")], "the download is gone"
    assert ingest_photos.fn(uploaded, PhotosOptions(), context).cached
    bucket.write("uploads/north field/photo4.jpg", photo(4))
    more = ingest_photos.fn(uploaded, PhotosOptions(), context)
    assert (more.usable, more.cached) == (4, False)


def test_an_archive_on_s3(bucket: S3Folder, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in PHOTOS.items():
            archive.writestr(name, content)
    bucket.write("uploads/south.zip", file.getvalue())
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    found = ingest_photos.fn(f"s3://{bucket.bucket}/uploads/south.zip", PhotosOptions(), context)
    assert (found.capture, found.usable) == ("south", 3)


def test_what_the_listener_answers_computes_nothing_again(uploaded: str, bucket: S3Folder, tmp_path: Path) -> None:
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    first = ingest_photos.fn(uploaded, PhotosOptions(), context)
    bucket.write("uploads/north field/DONE.json", b"{}")
    again = ingest_photos.fn(uploaded, PhotosOptions(), context)
    assert (first.cached, again.cached) == (False, True)
    bucket.write("uploads/north field/film.mp4", b"...")
    assert not ingest_photos.fn(uploaded, PhotosOptions(), context).cached, "the report counts it"


def test_the_listing_tells_one_capture_from_another(uploaded: str, bucket: S3Folder, tmp_path: Path) -> None:
    before = remote(uploaded, tmp_path).digest
    bucket.write("uploads/north field/READY.json", b'{"preset": "draft"}')
    assert remote(uploaded, tmp_path).digest == before, "what is no photo does not count"
    assert remote(uploaded.rstrip("/"), tmp_path).digest == before
    bucket.write("uploads/north field/photo1.jpg", photo(9))
    assert remote(uploaded, tmp_path).digest != before


def test_a_download_reports_and_keeps_names(uploaded: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    folder = remote(uploaded, tmp_path).download(tmp_path / "got", seen.append)
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")} == PHOTOS
    assert seen[-1].done == seen[-1].total == sum(map(len, PHOTOS.values()))


def stored(*names: str) -> tuple[StoredObject, ...]:
    return tuple(StoredObject(name, 1, "") for name in names)


def names_of(*keys: str) -> list[str]:
    names, rejected = local_names("s3://b/odd", stored(*keys))
    assert not rejected
    return list(names.values())


def test_keys_that_no_folder_can_hold_side_by_side_get_names_of_their_own() -> None:
    assert names_of("a.jpg", "a.jpg/b.jpg") == ["a.jpg", "a.jpg-2/b.jpg"]
    assert names_of("a/b.jpg", "a//b.jpg", "a/B.jpg") == ["a/b.jpg", "a/b-2.jpg", "a/B-3.jpg"]


def test_names_cannot_lead_out_of_the_folder() -> None:
    assert names_of("/etc//photo.jpg") == ["etc/photo.jpg"]
    assert not is_photo_name("../photo.jpg"), "so it is not downloaded"
    for key in ("a/../../photo.jpg", "..\\photo.jpg", "C:/photo.jpg"):
        with pytest.raises(PhotosError, match=r"s3://b/odd cannot be downloaded: The file name"):
            local_names("s3://b/odd", stored(key))


def test_a_key_that_is_no_file_name_costs_that_photo_alone(uploaded: str, bucket: S3Folder, tmp_path: Path) -> None:
    bucket.write("uploads/north field/a\nb.jpg", photo(10))  # becomes one
    bucket.write(f"uploads/north field/{LONG}", photo(11))
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    found = ingest_photos.fn(uploaded, PhotosOptions(), context)
    assert (found.usable, found.rejected) == (4, 1)
    section = photos.PHOTOS.measured(found, context)
    assert section.found == 5
    [rejected] = section.rejected
    assert rejected.name == LONG
    assert "is longer than 884 bytes" in rejected.reason
    assert (section.not_read, section.notes) == ({}, ())


def test_a_key_longer_than_a_file_name_costs_that_photo_alone() -> None:
    """A key may have 1024 bytes, a part of a path 255."""
    long = "x" * 256 + ".jpg"
    names, [rejected] = local_names("s3://b/odd", stored("a.jpg", long))
    assert list(names.values()) == ["a.jpg"]
    assert rejected.name == long
    assert "has a part of more than 255 bytes" in rejected.reason


def test_photos_of_which_none_has_a_file_name_are_refused(bucket: S3Folder, tmp_path: Path) -> None:
    bucket.write(f"uploads/west/{LONG}", photo(9))
    with pytest.raises(PhotosError, match=r"No photo at s3://.*/uploads/west/ can be used; d+/.*x\.jpg: .* 884 bytes"):
        remote(f"s3://{bucket.bucket}/uploads/west/", tmp_path).download(tmp_path / "west", lambda progress: None)


def test_the_flight_log_beside_photos_on_s3_is_read(uploaded: str, bucket: S3Folder, tmp_path: Path) -> None:
    rows = "".join(f"47,{number},100\n" for number in range(8, 11))
    bucket.write("uploads/north field/logs/flight.csv", f"lat,lon,altitude(m)\n{rows}".encode())
    context = RunContext(workspace=str(tmp_path), run="flight-1")
    options = PhotosOptions(flight_log="flight.csv")
    first = ingest_photos.fn(uploaded, options, context)
    places = [entry.gps for entry in PhotoSet.load(open_output(first, context)).photos]
    assert [place.longitude_deg for place in places if place] == [8, 9, 10]
    assert ingest_photos.fn(uploaded, options, context).cached
    bucket.write("uploads/north field/logs/flight.csv", f"lat,lon,altitude(ft)\n{rows}".encode())
    assert not ingest_photos.fn(uploaded, options, context).cached, "the log's content counts"
    with pytest.raises(PhotosError, match=r"There is no flight log 'other\.csv' at s3://"):
        ingest_photos.fn(uploaded, PhotosOptions(flight_log="other.csv"), context)


@pytest.mark.parametrize("named", ["log.csv", "./log.csv", "../elsewhere/log.csv"])
def test_beside_photos_on_s3_no_file_of_the_workers_own_folder_is_read(
    named: str, uploaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploaders may name the log: a worker's own one would say where its owner flies."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/log.csv").write_text("lat,lon,altitude(m)\n47,8,100\n47,9,100\n47,10,100\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    context = RunContext(workspace=str(tmp_path / "workspace"), run="flight-1")
    with pytest.raises(PhotosError, match="There is no flight log"):
        ingest_photos.fn(uploaded, PhotosOptions(flight_log=named), context)


def test_a_log_on_s3_that_is_too_large_is_not_downloaded(
    uploaded: str, bucket: S3Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.core.photos.flight_log.MOST_LOG_BYTES", 10)
    bucket.write("uploads/north field/log.csv", b"x" * 11)
    with pytest.raises(PhotosError, match=r"The flight log 'log\.csv' has more than"):
        open_source(uploaded, str(tmp_path), "log.csv")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("s3://no-such-bucket/flight", "There is no bucket"),
        ("s3://{bucket}/nothing/", "There is nothing at"),
        ("s3://{bucket}/texts", r"No photos among 2 objects at .* \(found: \.pdf, \.txt\)"),
        ("s3://{bucket}/missing.zip", r"There is no s3://.*/missing\.zip"),
        ("https://example.org/a.zip", "cannot be read: give a folder"),
        ("s3://", "names no bucket"),
    ],
)
def test_what_holds_no_photos_is_refused(bucket: S3Folder, tmp_path: Path, uri: str, sentence: str) -> None:
    bucket.write("texts/a.txt", b"")
    bucket.write("texts/b.pdf", b"")
    with pytest.raises(PhotosError, match=sentence):
        open_source(uri.format(bucket=bucket.bucket), str(tmp_path))


def test_denied_photos_are_refused(bucket: S3Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PhotosError, match=r"was denied .*check the credentials"):
        open_source(f"s3://{bucket.bucket}/flight", str(tmp_path))


def test_what_captures_are_called(tmp_path: Path) -> None:
    (tmp_path / "flight.zip").touch()
    (tmp_path / "...zip").touch()
    names = {
        "s3://b/uploads/north field/": "north field",
        "s3://b/uploads/south.ZIP": "south",
        "s3://b/uploads/east/images": "east",
        "s3://b": "b",
        "s3://b/...zip": "capture",
        "s3://b/a\x1b[2J": "a\\x1b[2J",
        str(tmp_path / "...zip"): "capture",
        str(tmp_path / "flight.zip"): "flight",
        str(tmp_path / "gone.zip"): "gone",
        str(tmp_path / "west" / "photos"): "west",
    }
    assert {source: capture_name(source) for source in names} == names


def test_a_place_on_s3_is_never_a_colmap_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "s3:" / "bucket" / "model" / "sparse" / "0"
    model.mkdir(parents=True)
    for name in ("cameras", "images", "points3D"):
        (model / f"{name}.bin").touch()
    monkeypatch.chdir(tmp_path)
    assert is_given_model("s3:/bucket/model")
    assert not is_given_model("s3://bucket/model")
