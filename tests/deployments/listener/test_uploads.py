"""Messages name uploads; keys of any spelling have places that cannot meet."""

import itertools
import json

import pytest

from deployments.listener.uploads import DONE, FAILED, MessageError, Upload, places_start, read_event
from tasks.core.errors import InputError
from tests.deployments.listening import event

A, B = (Upload(bucket="b", key=f"uploads/{name}", version="1") for name in ("site a/READY.json", "x/y.zip"))
SPELLINGS = (
    *("flight/READY.json", "flight.zip", "flight.zip/READY.json", "flight.zip.zip", "Flight.zip", "flight .zip"),
    *("flight/colmap/READY.json", "flight/colmap.zip", "flight/lod/index.html/READY.json", "flight-colmap.zip"),
    *("a/b.zip", "a/b/READY.json", "a-b.zip", "ä/b.zip", "a\u0308/b.zip", "日本.zip", "a%2Fb.zip"),
    *("DONE.json/READY.json", "READY.json/READY.json", "x.zip.DONE.json/READY.json", "~/x.zip", "-.zip", "a#b.zip"),
)


def at(key: str, version: str = "1") -> Upload:
    return Upload(bucket="b", key=f"uploads/{key}", version=version)


@pytest.mark.parametrize(
    ("upload", "capture", "photos", "done"),
    [
        (A, "site a", "s3://b/uploads/site a", "uploads/site a/DONE.json"),
        (B, "x/y", "s3://b/uploads/x/y.zip", "uploads/x/y.zip.DONE.json"),
    ],
)
def test_an_event_names_an_upload(upload: Upload, capture: str, photos: str, done: str) -> None:
    read = read_event(event(upload), "b")
    assert read == upload
    assert (read.capture, read.photos, read.signal_key(DONE)) == (capture, photos, done)
    assert Upload.of_identity(read.identity) == read


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "not an event"),
        ("[1]", "not an event"),
        ("[" * 100_000, "RecursionError"),
        ('{"Records": []}', "not an event"),
        (event(A, **{"detail-type": "Object Deleted"}), "Object Deleted"),
        (event(A, **{"detail-type": "x" * 100_000}), "x…' of 'aws.s3'"),
        (event(A, detail=None), "not an event"),
        (event(A.model_copy(update={"bucket": "other"})), "other"),
        (event(at("site/photo.jpg")), "neither"),
        (event(at("READY.json")), "neither"),
        (event(at("/READY.json")), "neither"),
        (event(at("../secret/READY.json")), "neither"),
        (event(at("./x.zip")), "neither"),
        (event(at("x.zip\n")), "neither"),
        (event(at("x/READY.json\n")), "neither"),
        (event(at("x\ud800.zip")), "UTF-8"),
        (event(at("x" * 1004 + ".zip")), "no room"),
        (event(at("x.zip", "1#2")), "version"),
        (event(at("x.zip", "1 2\n")), "version"),
        (event(A.model_copy(update={"version": ""})), None),  # the ETag will do
    ],
)
def test_a_message_that_is_no_upload_says_why(body: str, says: str | None) -> None:
    if says is None:
        assert read_event(body, "b").version == "0" * 32
        return
    with pytest.raises(MessageError, match=says) as error:
        read_event(body, "b")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "key", ["a//b/READY.json", "a/./b.zip", "/flight.zip", "a/.zip", "...zip", "a\\b.zip", "a\x1b[2J.zip", "C:/x.zip"]
)
def test_a_name_that_would_be_another_capture_elsewhere_is_refused(key: str) -> None:
    with pytest.raises(InputError):
        at(key).require_plain_name()


def test_the_refusal_of_a_name_has_the_way_out() -> None:
    with pytest.raises(InputError, match=r"upload it as 'uploads/a/b/READY.json'"):
        at("a//b/READY.json").require_plain_name()
    with pytest.raises(InputError, match=r"upload it as 'uploads/flight.zip'"):
        at("/flight.zip").require_plain_name()
    with pytest.raises(InputError, match=r"control characters. Upload it under another name"):
        at("a\x1b[2J.zip").require_plain_name()


def test_no_two_captures_and_no_two_versions_share_a_place() -> None:
    uploads = [at(key, version) for key in SPELLINGS for version in ("1", "2")]
    places = [upload.place for upload in uploads]
    assert len({place.casefold() for place in places}) == len(uploads)
    assert not [place for place in places if "/" in place or place.strip(".") != place or not place.isascii()]
    assert len({upload.tag for upload in uploads}) == len(SPELLINGS), "one for all versions of a capture"
    assert all(upload.place.startswith(places_start(upload.capture)) for upload in uploads)


def test_signals_of_two_uploads_are_never_the_same_object_and_never_an_upload() -> None:
    uploads = [at(key) for key in SPELLINGS]
    keys = [upload.signal_key(name) for upload, name in itertools.product(uploads, (DONE, FAILED))]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {upload.key for upload in uploads}


@pytest.mark.parametrize(
    "identity",
    [
        None,
        "",
        "s3://b/elsewhere/x.zip#1",
        "s3://b/uploads/x.zip",
        "s3://b/uploads/x.zip\n#1",
        "s3://b/uploads/x.zip#1\n",
    ],
)
def test_a_run_of_somebody_else_has_no_upload(identity: str | None) -> None:
    assert Upload.of_identity(identity) is None


def test_an_upload_in_a_log_is_one_short_line() -> None:
    assert str(at("a\n\x1b[31m.zip", "abcdefghij")) == "'uploads/a\\n\\x1b[31m.zip' abcdefgh"


def test_an_event_with_numbers_for_texts_is_refused() -> None:
    whole = json.loads(event(A))
    whole["detail"]["object"]["key"] = 7
    with pytest.raises(MessageError, match="neither"):
        read_event(json.dumps(whole), "b")
