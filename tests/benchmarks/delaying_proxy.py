"""A distance between a client and a server on this machine: `python -m tests.benchmarks.delaying_proxy PORT SECONDS`.

Prints the port on which it listens. All that the server at PORT says arrives SECONDS later, in its order and as fast as
it was said.
"""

import asyncio
import sys

CHUNK_BYTES = 256 * 1024


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on everything, each piece so long after it came."""
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def write() -> None:
        while True:
            at, piece = await pieces.get()
            if not piece:
                break
            if seconds:
                await asyncio.sleep(at - loop.time())
            writer.write(piece)
            await writer.drain()

    writing = asyncio.create_task(write())
    try:
        while piece := await reader.read(CHUNK_BYTES):
            pieces.put_nowait((loop.time() + seconds, piece))
    except ConnectionError:
        pass
    pieces.put_nowait((0.0, b""))
    try:
        await writing
        writer.close()
    except ConnectionError:
        pass


async def serve(port: int, seconds: float) -> None:
    """Until the process ends."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port, limit=CHUNK_BYTES)
        await asyncio.gather(forward(reader, there_writer, 0.0), forward(there_reader, writer, seconds))

    server = await asyncio.start_server(connect, "127.0.0.1", 0, limit=CHUNK_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
