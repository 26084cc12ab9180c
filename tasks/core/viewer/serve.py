"""Serve a folder of results over http, on this machine only and for people who have its address.

The address begins with a secret (https://www.w3.org/TR/capability-urls/), because every other user of the machine, and
every page that a browser shows, can send requests to 127.0.0.1 too.
"""

import hmac
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks.core.errors import InputError

HOST = "127.0.0.1"
SERVER_NAME = "Spaceport"  # begins the header `Server` of every answer
SILENCE_SECONDS = 20.0  # a silent connection is closed after this time
MOST_CONNECTIONS = 64  # at the same time; a browser opens six
END_SECONDS = 5.0  # time for a thread to notice that its connection has been ended


class _Handler(SimpleHTTPRequestHandler):
    timeout = SILENCE_SECONDS
    server_version = SERVER_NAME
    server: "_Server"
    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        ".sog": "application/octet-stream",
        ".log": "text/plain; charset=utf-8",  # to be read, not downloaded
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # the next run writes the same names
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")  # the address is a secret
        super().end_headers()

    def send_head(self) -> Any:
        """Open the file, if the request has the secret and names this server as its host."""
        host = self.headers.get_all("Host") or []
        path = urlsplit(self.path).path
        secret, _, rest = path.lstrip("/").partition("/")
        if len(host) != 1 or host[0].lower() not in self.server.names or not self.server.knows(secret):
            self.send_error(HTTPStatus.UNAUTHORIZED, explain="Open the address that `spaceport` printed, all of it.")
            return None
        self.server.strangers.pop(self.request, None)
        below = unquote(rest)
        if "\0" in below or any(name.startswith(".") for name in below.split("/")):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """List nothing: a folder shows its index.html or does not exist."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def translate_path(self, path: str) -> str:
        """The file of a URL. A link that leads out of the folder counts as missing."""
        below = "/" + path.lstrip("/").partition("/")[2]
        found = Path(super().translate_path(below))
        inside = found.resolve().is_relative_to(Path(self.directory).resolve())
        return str(found) + "/" * below.endswith("/") if inside else str(Path(self.directory) / ".outside")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing: the caller decides what to show."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, port: int, secret: str) -> None:
        super().__init__((HOST, port), partial(_Handler, directory=str(folder)))
        self._secret = secret.encode()
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        self.strangers: dict[socket, None] = {}  # connections that have not sent the secret, the oldest first
        self.names = {f"{name}:{self.server_address[1]}" for name in (HOST, "localhost")}

    def knows(self, secret: str) -> bool:
        """Return whether the secret is ours."""
        return hmac.compare_digest(secret.encode(errors="replace"), self._secret)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in its own thread. If there are too many, end the oldest one without the secret."""
        if not self._free.acquire(blocking=False) and not self._end_stranger():
            self.shutdown_request(request)
            return
        self.strangers[request] = None
        super().process_request(request, client_address)

    def _end_stranger(self) -> bool:
        """End the oldest connection without the secret and take its slot. False when all have sent the secret."""
        for stranger in list(self.strangers):
            if self.strangers.pop(stranger, stranger) is None:  # still without the secret
                with suppress(OSError):
                    stranger.shutdown(SHUT_RDWR)  # its thread reads the end of the connection
                return self._free.acquire(timeout=END_SECONDS)
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle requests until the connection ends, and free its slot."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.strangers.pop(request, None)
            self._free.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Log nothing: a browser that disconnects is not an error."""


def open_server(folder: Path, port: int, secret: str) -> ThreadingHTTPServer:
    """A server of `folder` at http://127.0.0.1:port/secret/ that listens but does not answer yet.

    Port 0 chooses a free port. Raises InputError when the port is taken.
    """
    try:
        return _Server(folder, port, secret)
    except OSError as error:
        raise InputError(f"Port {port} cannot be used ({error.strerror}); name another one, or 0 for any.") from error


@contextmanager
def serve(folder: Path, port: int, page: str = "index.html") -> Iterator[str]:
    """Serve `folder` on 127.0.0.1 while the context lasts; yields the page's URL. Port 0 chooses a free port.

    Raises InputError when the folder contains no page or the port is taken.
    """
    if not (folder / page).is_file():
        raise InputError(f"{folder} holds no {page}; name the folder that `spaceport run --out` filled.")
    secret = secrets.token_urlsafe(16)
    server = open_server(folder, port, secret)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/{secret}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
