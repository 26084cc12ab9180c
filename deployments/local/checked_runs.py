"""Restrict job variables of runs to those that their work pool allows, where Prefect's server does not check them.

Prefect checks the variables of a run that it creates from a deployment, for the *Run* form, `spaceport` and
automations. A run that is posted to the API ready-made may have any variables, and a worker would add its `env` to the
pool's.

The request is read here before Prefect has checked the login, so it may come from any user of the machine.
"""

import json
from collections.abc import MutableMapping
from typing import Any

from deployments.local.own_origin import App, Receive, Scope, Send, answer

READY_MADE = "/api/flow_runs/"
MOST_BYTES = 2 * 2**20  # of a request; those of our runs have some thousand
TOO_LONG = {"detail": f"A run is described in at most {MOST_BYTES:,} bytes."}
REFUSED = {
    "detail": "A run with job variables is made from its deployment, where they are checked: POST "
    "/deployments/{id}/create_flow_run."
}


class CheckedRuns:
    """An ASGI app around Prefect's, which refuses ready-made runs with job variables (422) or too many bytes (413)."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", READY_MADE):
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        length = len(messages[0].get("body", b""))
        while messages[-1].get("more_body") and length <= MOST_BYTES:
            messages.append(await receive())
            length += len(messages[-1].get("body", b""))
        if length > MOST_BYTES:
            await _refuse(send, 413, TOO_LONG)
            return
        if _may_have_variables(b"".join(message.get("body", b"") for message in messages)):
            await _refuse(send, 422, REFUSED)
            return

        async def again() -> MutableMapping[str, Any]:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)


async def _refuse(send: Send, status: int, why: dict[str, str]) -> None:
    await answer(send, status, [(b"content-type", b"application/json")], json.dumps(why).encode())


def _may_have_variables(body: bytes) -> bool:
    try:
        run = json.loads(body)
    except RecursionError:  # nested too deeply to be parsed
        return True
    except ValueError:  # Prefect reports the error
        return False
    return isinstance(run, dict) and bool(run.get("job_variables"))
