"""A run that the API is given ready-made brings no job variables, however its request is cut; others reach Prefect."""

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest

from deployments.local.checked_runs import MOST_BYTES, CheckedRuns
from deployments.local.own_origin import Receive, Scope, Send

CREATE = "/api/flow_runs/"
EVIL: dict[str, Any] = {"flow_id": "x", "job_variables": {"env": {"LD_PRELOAD": "/tmp/x.so"}}}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body, as far as it comes."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(method: str, path: str, *parts: bytes) -> httpx.Response:
    async def chunks() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=CheckedRuns(echo))
        async with httpx.AsyncClient(transport=transport, base_url="http://unused") as client:
            return await client.request(method, path, content=chunks())

    return asyncio.run(send())


@pytest.mark.parametrize("path", [CREATE, "/api/flow%5Fruns/", f"{CREATE}?x=1"])
def test_job_variables_are_refused(path: str) -> None:
    body = json.dumps(EVIL).encode()
    for parts in ([body], [body[:20], b"", body[20:]], [json.dumps(EVIL).encode("utf-16")]):
        answer = ask("POST", path, *parts)
        assert answer.status_code == 422
        assert "POST /deployments/{id}/create_flow_run" in answer.json()["detail"]


def test_a_request_without_an_end_is_refused_before_it_is_in_memory() -> None:
    """Users who have no login may send it."""
    received, told = 0, list[Any]()

    async def receive() -> dict[str, Any]:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": bytes(2**16), "more_body": received < 1000}

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    asyncio.run(CheckedRuns(echo)({"type": "http", "method": "POST", "path": CREATE}, receive, send))
    assert told[0]["status"] == 413
    assert received <= MOST_BYTES // 2**16 + 1
    assert ask("POST", CREATE, b" " * MOST_BYTES).status_code == 201


def test_what_is_nested_too_deep_to_be_read_is_refused() -> None:
    assert ask("POST", CREATE, b'{"job_variables": ' + b"[" * 100_000).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "parts"),
    [
        ("POST", CREATE, [b'{"flow_id": ', b'"x"}']),
        ("POST", CREATE, [b'{"flow_id": "x", "job_variables": {}}']),
        ("POST", CREATE, [b'{"flow_id": "x", "job_variables": null}']),
        ("POST", CREATE, [b"{"]),
        ("POST", CREATE, [b"[1]"]),
        ("POST", CREATE, []),
        ("POST", "/api/deployments/1/create_flow_run", [json.dumps(EVIL).encode()]),  # Prefect looks at it itself
        ("POST", f"{CREATE}filter", [b"{}"]),
    ],
)
def test_everything_else_reaches_prefect_as_it_is(method: str, path: str, parts: list[bytes]) -> None:
    answer = ask(method, path, *parts)
    assert (answer.status_code, answer.content) == (201, b"".join(parts))
