"""An EC2 instance without AWS: its metadata service, and the watch over its worker, both in threads of this process."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from deployments.aws.runtime.gpu_host import Host, Metadata
from tests.support.patience import eventually


class FakeMetadata(ThreadingHTTPServer):
    """The instance's metadata service, version 2: it answers no request without a token."""

    taken_away = False

    class Handler(BaseHTTPRequestHandler):
        server: "FakeMetadata"

        def do_PUT(self) -> None:
            self.answer(200, "token" if self.path == "/latest/api/token" else "")

        def do_GET(self) -> None:
            if self.headers["X-aws-ec2-metadata-token"] != "token":
                self.answer(401, "")
            elif self.path == "/latest/meta-data/instance-id":
                self.answer(200, "i-0123")
            elif self.path == "/latest/meta-data/spot/instance-action" and self.server.taken_away:
                self.answer(200, '{"action": "terminate"}')
            else:
                self.answer(404, "")

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass


@contextmanager
def metadata_service() -> Iterator[FakeMetadata]:
    """Of an instance that is not interrupted yet."""
    with FakeMetadata(("127.0.0.1", 0), FakeMetadata.Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Watched:
    """A host that works in a thread."""

    def __init__(
        self, service: FakeMetadata, command: Sequence[str], environment: Mapping[str, str], idle_seconds: float
    ) -> None:
        self.ended_itself = False
        metadata = Metadata(f"http://127.0.0.1:{service.server_port}")
        assert metadata.instance_id() == "i-0123"
        self.host = Host(metadata, self._end, command, environment, idle_seconds, look_seconds=0.1)
        self.reason = ""
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _end(self) -> None:
        self.ended_itself = True

    def _watch(self) -> None:
        self.reason = self.host.watch()

    def await_end(self) -> None:
        eventually(lambda: not self._thread.is_alive(), "end of the watch")
