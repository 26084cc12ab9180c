"""Protect this machine's Prefect server from other web pages, and log its owner's browser in.

Any web page can make the browser send requests to 127.0.0.1. Prefect's authentication stops requests that need an
answer from its API. This module stops the rest before it reaches Prefect: requests under another host's name (DNS
rebinding), and requests from another site's pages, including WebSockets.

https://fetch.spec.whatwg.org/#origin-header, https://www.w3.org/TR/fetch-metadata/
"""

import base64
import hashlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from deployments.local.access import SIGN_IN

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REFUSED = b"This server answers its own pages only.\n"
OTHER_SITE = {b"cross-site", b"same-site"}  # another port of 127.0.0.1 is the same site, but may belong to another user

# Prefect's UI keeps its password in the browser's storage under this name, in base64.
SIGN_IN_SCRIPT = """
const say = (text) => { document.querySelector("p").textContent = text; };
const secret = decodeURIComponent(location.hash.slice(1));
history.replaceState(null, "", location.pathname);
const stale = "This link does not work any more: `spaceport status` prints the one that does.";
if (!secret) say("Open the whole link that `spaceport up` or `spaceport status` prints, with what follows the #.");
else {
  const password = btoa(secret);
  fetch("/api/admin/version", { headers: { Authorization: "Basic " + password } }).then((answer) => {
    if (!answer.ok) return say(answer.status === 401 ? stale : "The server answers with " + answer.status + ".");
    localStorage.setItem("prefect-password", password);
    location.replace("/");
  }, () => say("The server does not answer."));
}
"""
SIGN_IN_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Spaceport</title>'
    '<body style="font: 1rem system-ui; margin: 4rem auto; max-width: 40rem">'
    f"<p>Logging in …</p><script>{SIGN_IN_SCRIPT}</script></html>"
).encode()
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SIGN_IN_SCRIPT.encode()).digest()).decode()
SIGN_IN_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        f"default-src 'none'; script-src 'sha256-{SCRIPT_HASH}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'".encode(),
    ),
]


class OwnOrigin:
    """An ASGI app around another one. It admits only requests to 127.0.0.1:port or localhost:port from own pages."""

    def __init__(self, app: App, port: int) -> None:
        names = [b"127.0.0.1", b"localhost"]
        self._app = app
        self._hosts = {name + (b":%d" % port) for name in names} | (set(names) if port == 80 else set())
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif not self._is_own(scope):
            await _refuse(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == SIGN_IN and scope["method"] in ("GET", "HEAD"):
            await answer(send, 200, SIGN_IN_HEADERS, SIGN_IN_PAGE)
        else:
            await self._app(scope, receive, _unframed(send))

    def _is_own(self, scope: Scope) -> bool:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        if len(hosts := headers.get(b"host", [])) != 1 or hosts[0].lower() not in self._hosts:
            return False
        if not set(headers.get(b"origin", [])) <= self._origins:
            return False
        # Another site may link to our pages, but not embed them as images, scripts or frames.
        if b"origin" in headers or not OTHER_SITE & set(headers.get(b"sec-fetch-site", [])):
            return True
        request = scope.get("method"), headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")
        return request == ("GET", [b"navigate"], [b"document"])


def _unframed(send: Send) -> Send:
    """Forbid other pages to frame ours, because a disguised click would have the owner's permissions."""

    async def with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            added = [(b"x-frame-options", b"SAMEORIGIN"), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return with_headers


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()  # the request to connect, which a close refuses
        await send({"type": "websocket.close", "code": 1008})
        return
    await answer(send, 401, [(b"content-type", b"text/plain")], REFUSED)


async def answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
