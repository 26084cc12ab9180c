"""`spaceport down` asks the server that it stops, and no other."""

import os
import sys
from pathlib import Path

from deployments.local.access import make_secrets
from deployments.local.processes import find, start, stop
from deployments.local.state import SERVER, LocalServer, folder_of, write_state
from deployments.plan import Plan
from tests.support.local_server import spaceport
from tests.support.patience import eventually
from tests.support.server_process import free_port, is_up

# Has one pool and no run, and writes what it is asked.
SERVER_OF_ONE_POOL = """
import base64, http.server, json, sys

POOL = {"id": "01a222ad-92c0-7104-ae1e-80968b2d2eb1", "name": "spaceport-cpu", "type": "process"}

class Asked(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", "0")))
        login = self.headers.get("authorization", "").removeprefix("Basic ")
        with open(sys.argv[2], "a") as asked:
            print(self.command, self.path, base64.b64decode(login).decode(), file=asked)
        body = json.dumps([POOL] if self.path == "/api/work_pools/filter" else []).encode()
        self.send_response(404 if self.path.startswith("/api/csrf-token") else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = answer

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Asked).serve_forever()
"""


def test_down_asks_the_server_that_it_stops(tmp_path: Path) -> None:
    """It once asked a server of its own, which Prefect had started on the same database, and which had no login."""
    home, asked, port = tmp_path / "home", tmp_path / "asked", free_port()
    start(SERVER, [sys.executable, "-c", SERVER_OF_ONE_POOL, str(port), str(asked)], folder_of(home), os.environ)
    try:
        write_state(home, LocalServer(port=port, pages_port=None, plan=Plan(workspace="/w")))
        secret = make_secrets(home, keep=False).api
        eventually(lambda: is_up(f"http://127.0.0.1:{port}/api/health"), "answer")
        down = spaceport(home, "down")
    finally:
        stop(SERVER, folder_of(home), 0.0)
    assert down.returncode == 0, down.stdout + down.stderr
    assert find(SERVER, folder_of(home)) is None
    requests = asked.read_text().splitlines()
    assert f"POST /api/work_pools/filter {secret}" in requests
    assert requests.count(f"PATCH /api/work_pools/spaceport-cpu {secret}") == 2, "paused, and not any more"
    assert f"POST /api/flow_runs/filter {secret}" in requests
    assert not (home / "prefect" / "prefect.db").exists(), "another server has made one"
