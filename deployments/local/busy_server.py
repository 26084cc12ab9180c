"""Makes clients wait a moment when Prefect's server is busy, however few tries they have left.

Prefect answers 503 when its database was busy, and its client then counts one of its tries. The commands of `spaceport`
have only two, because a silent server should be reported soon. A server that is merely busy would use them up within
seconds. The client does not count answers of a server in maintenance (`PrefectHttpxAsyncClient` in
prefect/client/base.py), so for some seconds the busy one says that it is.
"""

import time
from collections.abc import Callable, MutableMapping
from typing import Any

from deployments.local.own_origin import App, Receive, Scope, Send

BUSY = 503
PATIENCE_SECONDS = 8.0  # for one request; two tries and what lies between them then take less than 20 s
SOON = ((b"prefect-maintenance", b"true"), (b"retry-after", b"1"))


class WaitsWhenBusy:
    """An ASGI app around Prefect's, which adds to its answers 503 that the client is to ask again after a second."""

    def __init__(self, app: App, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._busy_since: dict[tuple[str, str], float] = {}  # by method and path of requests, until one succeeds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = scope["method"], scope["path"]

        async def back(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if message["status"] != BUSY:
                    self._busy_since.pop(request, None)
                elif self._may_wait(request):
                    message = {**message, "headers": [*message["headers"], *SOON]}
            await send(message)

        await self._app(scope, receive, back)

    def _may_wait(self, request: tuple[str, str]) -> bool:
        now = self._clock()
        over = [each for each, since in self._busy_since.items() if now - since > PATIENCE_SECONDS]
        for each in over:
            del self._busy_since[each]
        if request in over:
            return False
        self._busy_since.setdefault(request, now)
        return True
