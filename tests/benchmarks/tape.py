"""Record the requests that the Prefect server of `spaceport up` receives.

`python -m tests.benchmarks.tape …` is `python -m deployments.local.prefect_server …` that writes a line of JSON for
every request to the file in SPACEPORT_TAPE.
"""

import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydantic import BaseModel

from deployments.local.own_origin import App, OwnOrigin, Receive, Scope, Send


class Entry(BaseModel):
    """A request, or a message of a WebSocket."""

    at: float  # time.time()
    method: str  # "WS" for a message
    path: str
    sent_bytes: int = 0
    answer_bytes: int = 0


class Taped:
    """An ASGI app around another one."""

    def __init__(self, app: App, tape: Path) -> None:
        self._app, self._tape = app, tape.open("a", encoding="utf-8", buffering=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and write down."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        entry = Entry(at=time.time(), method=scope.get("method", "WS"), path=scope["path"])

        async def received() -> Any:
            message = await receive()
            entry.sent_bytes += len(message.get("body", b""))
            if message["type"] == "websocket.receive":
                size = len(message.get("text") or "")
                self._write(entry.model_copy(update={"at": time.time(), "sent_bytes": size}))
            return message

        async def sending(message: Any) -> None:
            entry.answer_bytes += len(message.get("body", b""))
            await send(message)

        await self._app(scope, received, sending)
        if entry.method != "WS":
            self._write(entry)

    def _write(self, entry: Entry) -> None:
        self._tape.write(entry.model_dump_json() + "\n")


def read_tape(tape: Path) -> list[Entry]:
    """All entries, in the order in which they came."""
    lines = tape.read_text(encoding="utf-8").splitlines()
    return sorted((Entry.model_validate_json(line) for line in lines), key=lambda entry: entry.at)


def main() -> None:
    from deployments.local import prefect_server

    def taped(app: App, port: int) -> Taped:
        return Taped(OwnOrigin(app, port), Path(os.environ["SPACEPORT_TAPE"]))

    with patch.object(prefect_server, "OwnOrigin", taped):
        prefect_server.main()


if __name__ == "__main__":
    main()
