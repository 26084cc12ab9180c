"""The server of results: an address that begins with a secret, files and nothing else, and few threads."""

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tasks.core.viewer import serve as serving
from tasks.core.viewer.serve import MOST_CONNECTIONS, serve
from tests.support.patience import eventually


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "result"
    (folder / "colmap").mkdir(parents=True)
    (folder / "index.html").write_text("<html>page</html>", encoding="utf-8")
    (folder / "colmap" / "points3D.bin").write_bytes(b"points")
    (folder / ".spaceport").write_text("ours", encoding="utf-8")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("theirs", encoding="utf-8")
    with serve(folder, 0) as address:
        yield address


def get(url: str, below: str, host: str | None = None, method: str = "GET") -> http.client.HTTPResponse:
    """Ask for a path as it is, however odd."""
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 0, timeout=30)
    connection.putrequest(method, below, skip_host=True)
    connection.putheader("Host", host or parts.netloc)
    connection.endheaders()
    return connection.getresponse()


def test_the_address_shows_the_page(url: str) -> None:
    answer = get(url, urlsplit(url).path)
    assert (answer.status, answer.read()) == (200, b"<html>page</html>")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    under_other_name = get(url, urlsplit(url).path, host=f"localhost:{urlsplit(url).port}")
    assert under_other_name.status == 200


@pytest.mark.parametrize(
    "path", ["/", "/index.html", "//index.html", "/wrong/index.html", "/%2e/index.html", "/x/../y"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_without_the_secret_there_is_nothing(url: str, path: str, method: str) -> None:
    answer = get(url, path, method=method)
    assert answer.status == 401
    assert b"page" not in answer.read()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1"])
def test_under_another_name_there_is_nothing(url: str, host: str) -> None:
    assert get(url, urlsplit(url).path, host=host).status == 401


@pytest.mark.parametrize(
    "below",
    ["colmap/", "colmap", ".spaceport", ".git/config", "%2egit/config", "colmap/%00", "../result/index.html", "a%00b"],
)
def test_folders_hidden_files_and_odd_names_are_not_shown(url: str, below: str) -> None:
    path = urlsplit(url).path + below
    answer = get(url, path)
    if answer.status == 301:  # a folder without its slash
        answer = get(url, answer.headers["Location"])
    assert answer.status == 404
    shown = answer.read()
    assert b"points3D" not in shown
    assert b"ours" not in shown
    assert b"theirs" not in shown


def test_silent_connections_hold_few_threads_and_not_for_long(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving._Handler, "timeout", 1.0)
    before = threading.active_count()
    parts = urlsplit(url)
    silent = [
        socket.create_connection((parts.hostname, parts.port or 0), timeout=30) for _ in range(3 * MOST_CONNECTIONS)
    ]
    try:
        closed_at_once = 0
        for connection in silent:
            connection.settimeout(30)
            closed_at_once += connection.recv(1) == b""  # returns when the server has closed it
        assert closed_at_once == len(silent)
        assert threading.active_count() - before <= MOST_CONNECTIONS
    finally:
        for connection in silent:
            connection.close()
    assert eventually(lambda: get(url, parts.path).status == 200, "answer after the silent ones are gone")


def test_silent_connections_keep_out_nobody_who_has_the_address(url: str) -> None:
    parts = urlsplit(url)
    silent = [socket.create_connection((parts.hostname, parts.port or 0)) for _ in range(MOST_CONNECTIONS)]
    try:
        assert get(url, parts.path).status == 200
        assert silent[0].recv(1) == b"", "the oldest has made room"
    finally:
        for connection in silent:
            connection.close()
