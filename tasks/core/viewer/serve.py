"""A result's folder over http, on this machine only."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tasks.core.errors import InputError

HOST = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        ".sog": "application/octet-stream",
        ".log": "text/plain; charset=utf-8",  # to be read, not downloaded
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # the next run writes the same names
        super().end_headers()

    def translate_path(self, path: str) -> str:
        """The file of a URL; a link that leads out of the folder leads nowhere."""
        found = Path(super().translate_path(path))
        inside = found.resolve().is_relative_to(Path(self.directory).resolve())
        return str(found) + "/" * path.endswith("/") if inside else str(Path(self.directory) / ".outside")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Quiet: what is shown is up to the caller."""


def open_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of `folder` on 127.0.0.1 that listens but does not answer yet. Port 0 takes a free one.

    Raises InputError when the port is taken.
    """
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise InputError(f"Port {port} cannot be used ({error.strerror}); name another one, or 0 for any.") from error


@contextmanager
def serve(folder: Path, port: int, page: str = "index.html") -> Iterator[str]:
    """Serve `folder` on 127.0.0.1 while the context lasts; gives the page's URL. Port 0 takes a free one.

    Raises InputError when the folder holds no page or the port is taken.
    """
    if not (folder / page).is_file():
        raise InputError(f"{folder} holds no {page}; name the folder that `spaceport run --out` filled.")
    server = open_server(folder, port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
