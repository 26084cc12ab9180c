"""Somebody who is notified: an HTTP server that keeps what is posted to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.patience import eventually


@dataclass
class Receiver:
    """What has come in."""

    url: str
    messages: list[dict[str, Any]] = field(default_factory=list)

    def wait_for(self, *parts: str) -> dict[str, Any]:
        """The first message whose text has all of these parts."""

        def found() -> dict[str, Any] | None:
            return next((message for message in self.messages if all(part in message["text"] for part in parts)), None)

        return eventually(found, f"message with {parts}", lambda: len(self.messages))


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Listen on 127.0.0.1 while the block runs."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Receiver(f"http://127.0.0.1:{server.server_address[1]}/hook", messages)
        server.shutdown()
