"""A busy server is asked again for some seconds, by Prefect's own client that has no second try."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from prefect.client.base import PrefectHttpxAsyncClient
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from deployments.local import busy_server
from deployments.local.busy_server import PATIENCE_SECONDS, WaitsWhenBusy
from deployments.local.own_origin import App, Receive, Scope, Send

PATH = "/api/work_pools/cpu"


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(busy_server, "SOON", ((b"prefect-maintenance", b"true"), (b"retry-after", b"0")))
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield


class Server:
    """Answers with these statuses, one after the other, and with the last one from then on."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        self.asked += 1
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def ask(app: App, path: str = PATH) -> int:
    async def patch() -> int:
        transport = httpx.ASGITransport(app=app)
        async with PrefectHttpxAsyncClient(transport=transport, base_url="http://unused") as client:
            return (await client.patch(path, json={"is_paused": True})).status_code

    return asyncio.run(patch())


def test_a_busy_one_is_asked_until_it_has_time() -> None:
    server = Server(503, 503, 503, 204)
    assert ask(WaitsWhenBusy(server)) == 204
    assert server.asked == 4


def test_prefects_own_still_gives_up() -> None:
    """When this fails, Prefect waits by itself, and deployments/local/busy_server.py can go."""
    with pytest.raises(PrefectHTTPStatusError, match="503"):
        ask(Server(503, 204))


def test_one_that_stays_busy_is_told_after_some_seconds() -> None:
    moments = iter(range(1000))  # a second passes with each answer
    server = Server(503)
    app = WaitsWhenBusy(server, clock=lambda: float(next(moments)))
    for _ in range(2):  # the next request has its own time
        before = server.asked
        with pytest.raises(PrefectHTTPStatusError, match="503"):
            ask(app)
        assert server.asked - before == PATIENCE_SECONDS + 2


def test_a_request_that_succeeds_gets_its_whole_time_later() -> None:
    moments = iter([0.0, PATIENCE_SECONDS + 1.0])
    app = WaitsWhenBusy(Server(503, 204, 503, 204), clock=lambda: next(moments))
    assert [ask(app), ask(app)] == [204, 204]


@pytest.mark.parametrize("status", [401, 404, 409, 500])
def test_other_answers_are_passed_on(status: int) -> None:
    server = Server(status)
    with pytest.raises(PrefectHTTPStatusError, match=str(status)):
        ask(WaitsWhenBusy(server))
    assert server.asked == 1
