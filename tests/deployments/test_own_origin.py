"""The Prefect server of this machine answers its own pages; other sites' pages and other hosts' names get 401.

Each refused request is one that a browser sends for a page of somebody else's.
"""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest

from deployments.local.own_origin import OwnOrigin, Receive, Scope, Send

PORT = 4200
OWN = {"host": "127.0.0.1:4200"}
NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
ACCEPTED = {
    "a program": OWN,
    "localhost": {"host": "localhost:4200"},
    "the UI's own request": {**OWN, "origin": "http://127.0.0.1:4200", "sec-fetch-site": "same-origin"},
    "the UI under its other name": {**OWN, "origin": "http://localhost:4200", "sec-fetch-site": "cross-site"},
    "an address that is typed": {**OWN, "sec-fetch-site": "none", **NAVIGATION},
    "a link that is followed": {**OWN, "sec-fetch-site": "cross-site", **NAVIGATION},
    "a link on the pages": {**OWN, "sec-fetch-site": "same-site", **NAVIGATION},
}
REFUSED = {
    "another name, as after DNS rebinding": {"host": "evil.example:4200"},
    "another name without a port": {"host": "evil.example"},
    "a name that begins like ours": {"host": "127.0.0.1:4200.evil.example"},
    "another port": {"host": "127.0.0.1:4201"},
    "no port": {"host": "127.0.0.1"},
    "another site": {**OWN, "origin": "http://evil.example"},
    "another port of this machine": {**OWN, "origin": "http://127.0.0.1:8000"},
    "another scheme": {**OWN, "origin": "https://127.0.0.1:4200"},
    "a sandboxed page or a file": {**OWN, "origin": "null"},
    "an image on another site": {**OWN, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    "a script on another port": {**OWN, "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    "a frame on another site": {
        **OWN,
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "iframe",
    },
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers every request, and accepts every WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"reached"})


def ask(headers: dict[str, str], method: str = "GET", path: str = "/") -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=OwnOrigin(app, PORT))
        async with httpx.AsyncClient(transport=transport, base_url="http://unused") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def connect(headers: dict[str, str]) -> list[str]:
    """The types of what is sent to a page that opens a WebSocket."""
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(OwnOrigin(app, PORT)({"type": "websocket", "path": "/", "headers": pairs}, receive, send))
    return sent


@pytest.mark.parametrize("headers", ACCEPTED.values(), ids=ACCEPTED)
def test_its_owner_reaches_it(headers: dict[str, str]) -> None:
    answer = ask(headers)
    assert (answer.status_code, answer.text) == (200, "reached")
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_other_pages_do_not(headers: dict[str, str], method: str) -> None:
    answer = ask(headers, method)
    assert answer.status_code == 401
    assert "reached" not in answer.text
    assert "access-control-allow-origin" not in answer.headers


def test_a_form_of_another_site_does_not() -> None:
    assert ask({**OWN, "sec-fetch-site": "cross-site", **NAVIGATION}, "POST").status_code == 401


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_other_pages_open_no_websocket(headers: dict[str, str]) -> None:
    assert connect(OWN) == ["websocket.accept", "websocket.close"]
    assert connect(headers) == ["websocket.close"]


def test_the_page_that_logs_in_runs_its_own_script_alone() -> None:
    answer = ask(OWN, path="/sign-in")
    assert "prefect-password" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
