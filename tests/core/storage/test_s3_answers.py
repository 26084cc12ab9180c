"""Servers that answer in S3's place: one sentence each, and an end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.config import Config

from tasks.core.errors import StorageError
from tasks.core.storage import S3Folder, StoredObject, open_s3_folder, s3_errors
from tests.support.patience import STALL_SECONDS

Answer = Callable[[BaseHTTPRequestHandler], None]
HTML = b"<!doctype html><html><p>Please sign in<br></html>"
XHTML = b"<html><body><p>Please sign in</p></body></html>"
TRICKLE_SECONDS = 0.01


class Server(ThreadingHTTPServer):
    """A server that answers every request in one way."""

    daemon_threads = True
    block_on_close = False
    answer: Answer

    def handle_error(self, *_: object) -> None:
        """Clients end connections as they like."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server: "Server"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with suppress(ConnectionError):
                self.server.answer(self)

        do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        def handle_expect_100(self) -> bool:
            """Be cut off in the middle of the answer to a client that asks whether it may send."""
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n")
            self.close_connection = True
            return False

        def log_message(self, *_: object) -> None:
            """Quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Server.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join(STALL_SECONDS)


@pytest.fixture(scope="module")
def folder(server: Server) -> S3Folder:
    return open_s3_folder(
        "s3://bucket/folder",
        client_options={
            "endpoint_url": f"http://127.0.0.1:{server.server_address[1]}",
            "aws_access_key_id": "a",
            "aws_secret_access_key": "b",
            "region_name": "us-east-1",
            "config": Config(retries={"total_max_attempts": 1}),
        },
    )


def with_body(body: bytes, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Length": str(len(body)), "Content-Type": "text/html", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
        handler.close_connection = headers.get("Content-Length") is not None  # which is not the body's

    return answer


def upload(folder: S3Folder, here: Path) -> None:
    (here / "x").write_bytes(b"1")
    folder.upload(here, ["x"])


ASK: dict[str, Callable[[S3Folder, Path], object]] = {
    "objects": lambda folder, _: list(folder.objects()),
    "folders": lambda folder, _: list(folder.folders()),
    "head": lambda folder, _: folder.head("x"),
    "read": lambda folder, _: folder.read("x"),
    "read_beginning": lambda folder, _: folder.read_beginning("x", 10),
    "write": lambda folder, _: folder.write("x", b"1"),
    "write on a condition": lambda folder, _: folder.write("x", b"1", only_over=None),
    "upload": upload,
    "download": lambda folder, here: folder.download([(StoredObject("x", 2**20, '"1"'), here / "got")]),
    "copy": lambda folder, _: folder.copy(folder.below("y"), ["x"]),
    "delete": lambda folder, _: folder.delete(["x"]),
}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize("page", [HTML, XHTML, b""], ids=["HTML", "XHTML", "nothing"])
def test_a_proxys_page_is_no_answer(server: Server, folder: S3Folder, tmp_path: Path, ask: str, page: bytes) -> None:
    server.answer = with_body(page)
    with pytest.raises(StorageError, match="s3://bucket/folder"):
        ASK[ask](folder, tmp_path)


def test_an_entry_of_a_list_without_an_etag(server: Server, folder: S3Folder, tmp_path: Path) -> None:
    entry = "<Contents><Key>folder/x</Key><Size>1</Size></Contents>"
    server.answer = with_body(f"<ListBucketResult><IsTruncated>false</IsTruncated>{entry}</ListBucketResult>".encode())
    for ask in ("objects", "head", "copy"):
        with pytest.raises(StorageError, match="lacks key, size or ETag"):
            ASK[ask](folder, tmp_path)


@pytest.mark.parametrize("status", [301, 302, 307])
@pytest.mark.parametrize("ask", ["objects", "read", "write", "delete"])
def test_a_redirect_without_end(server: Server, folder: S3Folder, tmp_path: Path, status: int, ask: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", f"http://{handler.headers['Host']}{handler.path}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = answer
    with pytest.raises(StorageError, match="sends every request on to another place"):
        ASK[ask](folder, tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_errors, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(s3_errors, "_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(s3_errors, "_SLOWEST_BYTES_A_SECOND", 1e6)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ask", [name for name in ASK if name != "copy"])
@pytest.mark.parametrize("part", ["header", "body"])
def test_a_byte_now_and_then_has_an_end(server: Server, folder: S3Folder, tmp_path: Path, ask: str, part: str) -> None:
    stop = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if part == "header":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        else:
            handler.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 1048576\r\n\r\n')
        handler.close_connection = True
        while not stop.wait(TRICKLE_SECONDS):
            handler.wfile.write(b"a")

    server.answer = answer
    try:
        with pytest.raises(StorageError, match="answers too slowly"):
            ASK[ask](folder, tmp_path)
    finally:
        stop.set()


def test_what_comes_fast_enough_is_read(server: Server, folder: S3Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, and to the end."""
    monkeypatch.setattr(s3_errors, "_PIECE_BYTES", 7)
    body = bytes(range(200))
    server.answer = with_body(body, ETag='"1"')
    assert folder.read("x") == (body, '"1"')
    assert folder.read_beginning("x", 10) == body
    server.answer = with_body(body, ETag='"1"', **{"Content-Length": "300"})
    with pytest.raises(StorageError):
        folder.read("x")


@pytest.mark.usefixtures("impatient")
def test_an_upload_that_is_cut_off_leaves_no_thread_at_work(server: Server, folder: S3Folder, tmp_path: Path) -> None:
    """Where botocore asks before it sends, it reads the end of the connection for ever."""
    server.answer = with_body(b"", ETag='"1"')
    upload(folder, tmp_path)
    assert "request to S3" not in [thread.name for thread in threading.enumerate()]
