"""Other web pages and users of the machine get nothing from `spaceport up`; its owner's browser logs in by a link.

The stranger's page is served from another port, and tries what a page can: requests, forms, images, WebSockets.
"""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.browser import chromium
from tests.support.local_server import Served, serving
from tests.support.patience import STALL_SECONDS

DRIVE_BY = """<!doctype html><title>a stranger's</title>
<form id="form" method="post" enctype="text/plain" target="frame" action="API/work_pools/">
  <input name='{"name": "from-form", "type": "process", "description": "' value='"}'>
</form>
<iframe name="frame" id="frame"></iframe>
<iframe id="ui"></iframe>
<script>
const pool = (name) => JSON.stringify({ name, type: "process" });
const told = {};
const tell = (name, promise) => promise.then((x) => (told[name] = x), (e) => (told[name] = "refused"));
const ask = (name, path, options) => tell(name, fetch("API" + path, options).then((a) => a.status + a.type));
const json = { "Content-Type": "application/json" };
const socket = (name, path) => new Promise((resolve) => {
  const socket = new WebSocket("API".replace("http", "ws") + path, "prefect");
  socket.onopen = () => { socket.send('{"type": "auth", "token": null}'); };
  socket.onmessage = () => resolve("opened");
  socket.onclose = () => resolve("refused");
});
const image = () => new Promise((resolve) => {
  const image = new Image();
  image.onload = () => resolve("shown");
  image.onerror = () => resolve("refused");
  image.src = "PAGES/picture.png";
});
const all = [
  ask("read", "/deployments/filter", { method: "POST", headers: json, body: "{}" }),
  ask("settings", "/admin/settings"),
  ask("create", "/work_pools/", { method: "POST", headers: json, body: pool("from-fetch") }),
  ask("simple", "/work_pools/", { method: "POST", mode: "no-cors", body: pool("from-simple") }),
  ask("guess", "/work_pools/", {
    method: "POST", headers: { ...json, Authorization: "Basic " + btoa("spaceport:") }, body: pool("from-guess") }),
  tell("events", socket("events", "/events/out")),
  tell("logs", socket("logs", "/logs/out")),
  tell("picture", image()),
];
document.getElementById("form").submit();
document.getElementById("ui").src = "UI/";
const loaded = new Promise((resolve) => { document.getElementById("frame").onload = resolve; });
Promise.all([...all, loaded]).then(() => { window.told = told; });
</script>"""
ROUTES = (
    ("GET", "/admin/settings"),
    ("GET", "/admin/version"),
    ("POST", "/deployments/filter"),
    ("POST", "/flow_runs/filter"),
    ("POST", "/flow_runs/"),
    ("POST", "/work_pools/"),
    ("POST", "/work_pools/filter"),
    ("PATCH", "/work_pools/spaceport-cpu"),
    ("POST", "/block_documents/filter"),
    ("POST", "/artifacts/filter"),
    ("POST", "/logs/filter"),
    ("DELETE", "/work_pools/spaceport-cpu"),
    ("GET", "/health/../admin/settings"),
)


@contextmanager
def stranger(folder: Path) -> Iterator[str]:
    """A web server of somebody else's."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("drive-by")
    with serving(folder / "home", folder / "workspace") as served:
        yield served


def heard(url: str, subprotocols: list[str] | None) -> str:
    """The first message to a stranger; raises WebSocketException where the connection is refused or closed."""
    offered = None if subprotocols is None else [Subprotocol(name) for name in subprotocols]
    with connect(url, subprotocols=offered) as socket:
        socket.send(json.dumps({"type": "auth", "token": "spaceport:"}))
        return str(socket.recv(timeout=STALL_SECONDS))


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_other_users_of_the_machine_are_told_nothing(server: Served, method: str, route: str) -> None:
    for guess in (None, ("spaceport", ""), ("spaceport", "password")):
        answer = httpx.request(method, server.api_url + route, auth=guess, json={}, timeout=STALL_SECONDS)
        assert answer.status_code == 401
        assert set(answer.json()) == {"exception_message"}


@pytest.mark.parametrize("route", ["/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled"])
@pytest.mark.parametrize("subprotocols", [None, ["prefect"]])
def test_other_users_open_no_websocket(server: Served, route: str, subprotocols: list[str] | None) -> None:
    url = server.api_url.replace("http", "ws") + route
    with pytest.raises(WebSocketException):
        heard(url, subprotocols)


def test_the_pages_are_for_those_who_have_their_address(server: Served) -> None:
    pages = urlsplit(server.pages_url)
    runs = server.workspace / "runs"
    (runs / "a-run").mkdir(parents=True, exist_ok=True)
    (runs / "a-run" / "picture.png").write_bytes(b"picture")
    assert httpx.get(f"{server.pages_url}/a-run/picture.png").content == b"picture"
    for base in (f"http://{pages.netloc}", f"http://{pages.netloc}/{'x' * len(pages.path)}"):
        answer = httpx.get(f"{base}/a-run/picture.png")
        assert answer.status_code == 401
        assert b"picture" not in answer.content


def test_a_page_that_its_owner_opens_can_do_nothing(server: Served, tmp_path: Path) -> None:
    pages = urlsplit(server.pages_url)
    page = DRIVE_BY.replace("PAGES", f"http://{pages.netloc}").replace("UI/", f"{server.ui_url}/")
    (tmp_path / "page.html").write_text(page.replace("API", server.api_url), encoding="utf-8")
    with stranger(tmp_path) as theirs, chromium(tmp_path) as browser:
        # The owner is logged in, in this very browser.
        browser.open(f"{server.ui_url}/sign-in#{server.secret}")
        browser.wait_for("location.pathname !== '/sign-in' && localStorage.getItem('prefect-password')")
        browser.open(f"{theirs}/page.html")
        browser.wait_for("window.told")
        told = browser.evaluate("window.told")
        framed = browser.evaluate("document.getElementById('ui').contentDocument === null")
    # "simple" is a request whose answer no page may read; that it did nothing is seen below.
    assert told.pop("simple") in ("0opaque", "refused")
    assert set(told.values()) == {"refused"}, told
    assert framed
    with server.client() as client:
        assert {pool.name for pool in client.read_work_pools()} == {"spaceport-cpu", "spaceport-gpu"}


def test_its_owner_logs_in_by_one_link(server: Served, tmp_path: Path) -> None:
    status = server.spaceport("status")
    [line] = [line for line in status.stdout.splitlines() if "log in" in line]
    link = line.split()[-1]
    with chromium(tmp_path, 1200, 900) as browser:
        for ui in ("/v2/deployments", "/deployments"):
            browser.open("about:blank")
            browser.open(link)
            browser.wait_for("location.pathname !== '/sign-in' && localStorage.getItem('prefect-password')")
            assert browser.evaluate("location.hash") == ""
            browser.open(server.ui_url + ui)
            browser.wait_for("document.body?.innerText.includes('reconstruct')")
        browser.evaluate("localStorage.clear()")
        browser.open("about:blank")
        browser.open(f"{server.ui_url}/sign-in#spaceport:old")
        browser.wait_for("document.body?.innerText.includes('does not work any more')")
        assert browser.evaluate("localStorage.getItem('prefect-password')") is None
