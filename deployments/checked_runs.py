"""Keeps job variables of runs within what their work pool allows, where Prefect's server does not look at them.

Prefect checks the variables of a run that it makes from a deployment, as the *Run* form, `spaceport` and automations
ask it to. A run that the API is given ready-made may have any, and a worker would add its `env` to the pool's.
"""

import json
from collections.abc import MutableMapping
from typing import Any

from deployments.own_origin import App, Receive, Scope, Send, answer

READY_MADE = "/api/flow_runs/"
REFUSED = {
    "detail": "A run with job variables is made from its deployment, where they are checked: POST "
    "/deployments/{id}/create_flow_run."
}


class CheckedRuns:
    """An ASGI app around Prefect's, which refuses ready-made runs with job variables (422)."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", READY_MADE):
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        if _has_variables(b"".join(message.get("body", b"") for message in messages)):
            await answer(send, 422, [(b"content-type", b"application/json")], json.dumps(REFUSED).encode())
            return

        async def again() -> MutableMapping[str, Any]:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)


def _has_variables(body: bytes) -> bool:
    try:
        run = json.loads(body)
    except ValueError:  # Prefect says what is wrong with it
        return False
    return isinstance(run, dict) and bool(run.get("job_variables"))
