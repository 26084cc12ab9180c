"""A proxy in front of a storage server, which for a while answers 503, or slowly, cuts answers off, or refuses."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from urllib.parse import urlsplit

MODES = ("5xx", "slow", "cut", "lost")
CHUNK_BYTES, SLOW_SECONDS, CUT_SHARE = 16_384, 0.3, 0.3
BUSY = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
ANSWER_503 = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
)


class Proxy:
    """Passes bytes on, and counts what it has spoilt."""

    def __init__(self, server: str, seed: int) -> None:
        """`server`: the URL of the real one."""
        self._host, self._port = urlsplit(server).hostname, urlsplit(server).port
        self._random = Random(seed)
        self.mode: str | None = None
        self.spoilt = 0
        self.url = ""

    async def serve(self, started: threading.Event) -> None:
        """Serve until `end`."""
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await self._end.wait()
        server.close()

    def end(self) -> None:
        """End `serve`, from another thread."""
        self._loop.call_soon_threadsafe(self._end.set)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if self.mode == "lost":
                self._spoil(writer)
            elif self.mode == "5xx":
                self.spoilt += 1
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ANSWER_503 % (len(BUSY), BUSY))
                await writer.drain()
                writer.close()
            else:
                up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
                both = (self._pass(reader, up_writer), self._pass(up_reader, writer))
                with suppress(OSError):
                    await asyncio.gather(*both)
                for each in (writer, up_writer):
                    each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self.mode == "slow":
                self.spoilt += 1
                await asyncio.sleep(SLOW_SECONDS)
            if self.mode in ("lost", "5xx"):
                self._spoil(writer)
                raise ConnectionAbortedError
            if self.mode == "cut" and self._random.random() < CUT_SHARE:
                writer.write(chunk[: len(chunk) // 2])
                with suppress(OSError):
                    await writer.drain()
                self._spoil(writer)
                raise ConnectionAbortedError
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _spoil(self, writer: asyncio.StreamWriter) -> None:
        self.spoilt += 1
        writer.transport.abort()


@contextmanager
def proxy(server: str, seed: int) -> Iterator[Proxy]:
    """A proxy at a port of its own, which ends with the context."""
    made, started = Proxy(server, seed), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(started)), name="proxy")
    thread.start()
    started.wait()
    try:
        yield made
    finally:
        made.end()
        thread.join()
