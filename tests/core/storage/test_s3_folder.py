"""S3's answers in our words, and links that open."""

import errno
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError, ReadTimeoutError

from tasks.core.errors import DestinationError, PhotosError, SpaceportError, StorageError
from tasks.core.storage import S3Folder, open_s3_folder, s3_folder
from tasks.core.storage.s3_errors import s3_errors
from tasks.core.storage.s3_transfers import content_type
from tests.support.patience import STALL_SECONDS
from tests.support.s3_server import S3Server


@pytest.fixture
def folder(s3: S3Server) -> S3Folder:
    return S3Folder(s3.client(), s3.new_bucket(), "a/b")


def test_names_are_relative_to_the_folder(folder: S3Folder) -> None:
    folder.write("one.txt", b"1")
    folder.below("sub/").write("two.txt", b"22")
    S3Folder(folder.client, folder.bucket, "a/bc").write("other.txt", b"no part of a/b")
    assert [(found.name, found.size) for found in folder.objects()] == [("one.txt", 1), ("sub/two.txt", 2)]
    assert folder.head("one.txt") is not None
    assert folder.head("one") is None
    assert folder.read("one") is None
    assert folder.relative(f"s3://{folder.bucket}/a/b/sub/two.txt") == "sub/two.txt"
    assert folder.relative(f"s3://{folder.bucket}/a/bc/other.txt") is None
    assert folder.relative(f"{folder.uri}/") == ""


def test_a_write_can_be_conditional(folder: S3Folder) -> None:
    assert folder.write("x", b"1", only_over=None)
    assert not folder.write("x", b"2", only_over=None)
    found = folder.read("x")
    assert found is not None
    assert found[0] == b"1"
    assert folder.write("x", b"3", only_over=found[1])
    assert not folder.write("x", b"4", only_over=found[1])
    folder.delete(["x"])
    assert not folder.write("x", b"5", only_over=found[1])


def test_many_and_large_files_travel(folder: S3Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More objects than one call deletes, and 40 MB, which are a multipart upload."""
    monkeypatch.setattr(s3_folder, "_KEYS_A_DELETE", 20)
    moved: list[int] = []
    large = bytes(range(256)) * (40 * 2**20 // 256)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "large").write_bytes(large)
    names = [f"{number:04d}" for number in range(50)]
    for name in names:
        (tmp_path / "up" / name).touch()
    folder.upload(tmp_path / "up", [*names, "large"], moved.append)
    assert moved[-1] == len(large)
    assert moved == sorted(moved)
    assert sum(1 for _ in folder.objects()) == 51
    stored = folder.head("large")
    assert stored is not None
    folder.download([(stored, tmp_path / "down" / "large")])
    assert (tmp_path / "down" / "large").read_bytes() == large
    with pytest.raises(StorageError, match="changed by another process"):
        folder.download([(replace(stored, etag='"0"'), tmp_path / "other")])
    folder.delete([*names, "large"])
    assert list(folder.objects()) == []


def test_a_link_opens_without_credentials(folder: S3Folder) -> None:
    folder.write("Süd & Nord.html", b"<p>page</p>")
    link = folder.link("Süd & Nord.html")
    assert "X-Amz-Expires=604800" in link, "seven days"
    with urllib.request.urlopen(link, timeout=STALL_SECONDS) as answer:
        assert answer.read() == b"<p>page</p>"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link.split("?")[0], timeout=STALL_SECONDS)


@pytest.mark.parametrize(
    "ask",
    [
        lambda folder: list(folder.objects()),
        lambda folder: folder.head("x"),
        lambda folder: folder.read("x"),
        lambda folder: folder.write("x", b""),
        lambda folder: folder.delete(["x"]),
    ],
    ids=["objects", "head", "read", "write", "delete"],
)
def test_a_bucket_that_is_not_there_is_refused(s3: S3Server, ask: Callable[[S3Folder], object]) -> None:
    missing = S3Folder(s3.client(), "no-such-bucket", "x", refused=PhotosError)
    with pytest.raises(PhotosError, match="There is no bucket for s3://no-such-bucket/x"):
        ask(missing)


@pytest.mark.parametrize(
    ("key", "secret"),
    [("nobody", "spaceport-test-secret"), ("spaceport-test", "wrong"), ("reader", "spaceport-test-secret")],
    ids=["unknown key", "wrong secret", "may only read"],
)
def test_denied_access_is_refused(folder: S3Folder, s3: S3Server, key: str, secret: str) -> None:
    denied = open_s3_folder(
        folder.uri,
        client_options={"endpoint_url": s3.endpoint, "aws_access_key_id": key, "aws_secret_access_key": secret},
    )
    with pytest.raises(DestinationError, match=r"Access to s3://.* was denied .*check the credentials"):
        denied.require_writable()


def answer(code: str, status: int) -> ClientError:
    response = {"Error": {"Code": code, "Message": "said"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")  # type: ignore[arg-type]


class Unlisted:
    """S3 as it answers those who may not list the bucket, or not for this."""

    def __init__(self, there: str, *, may_list: bool) -> None:
        self._there, self._may_list = there, may_list

    def get_object(self, **_: object) -> None:
        raise answer("AccessDenied", 403)

    def list_objects_v2(self, **_: object) -> dict[str, list[dict[str, str]]]:
        if not self._may_list:
            raise answer("AccessDenied", 403)
        return {"Contents": [{"Key": self._there}]}


def test_a_missing_object_is_told_from_a_refusal_where_s3_answers_403_to_both() -> None:
    assert S3Folder(Unlisted("a/object-of-a-longer-name", may_list=True), "bucket", "a").read("object") is None
    for client in (Unlisted("a/object", may_list=True), Unlisted("a/other", may_list=False)):
        with pytest.raises(DestinationError, match="denied"):
            S3Folder(client, "bucket", "a").read("object")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (answer("SlowDown", 503), StorageError),
        (answer("InternalError", 500), StorageError),
        (answer("TooManyRequests", 429), StorageError),
        (answer("RequestTimeout", 400), StorageError),
        (answer("NoSuchKey", 404), StorageError),
        (ConnectTimeoutError(endpoint_url="http://x"), StorageError),
        (ReadTimeoutError(endpoint_url="http://x"), StorageError),
        (answer("ExpiredToken", 400), DestinationError),
        (answer("AccessDenied", 403), DestinationError),
        (answer("PermanentRedirect", 301), DestinationError),
        (NoCredentialsError(), DestinationError),
    ],
    ids=str,
)
def test_errors_that_no_local_server_makes(raised: Exception, expected: type[SpaceportError]) -> None:
    with pytest.raises(SpaceportError) as caught, s3_errors("s3://b/x"):
        raise raised
    assert type(caught.value) is expected
    assert "s3://b/x" in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(OSError, match="full"), s3_errors("s3://b/x"):
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "http://b/x", "s3://b/../x", "s3://Not A Bucket/x"])
def test_what_names_no_place_is_refused(uri: str, s3_environment: S3Server) -> None:
    with pytest.raises(DestinationError):
        list(open_s3_folder(uri).objects())


def test_content_types() -> None:
    names = ("index.html", "report.json", "preview.JPG", "scene.sog", "cameras.bin", "a.webp")
    assert [content_type(name) for name in names] == [
        "text/html; charset=utf-8",
        "application/json",
        "image/jpeg",
        "application/octet-stream",
        "application/octet-stream",
        "image/webp",
    ]
