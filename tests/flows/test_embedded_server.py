"""The server of one command: for that command alone, and gone with it."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from flows.cli import connection
from flows.cli.connection import EmbeddedServer, ServerOfRun
from tasks.core.errors import ServerError
from tasks.running.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.local_server import spaceport
from tests.support.own_home import without_users_servers
from tests.support.patience import STALL_SECONDS, eventually
from tests.support.pictures import save_textured
from tests.support.server_process import free_port

COMMAND = """
import os, sys
from pathlib import Path
from flows.cli.connection import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), os.environ).running(lambda text: print(text, flush=True)):
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        assert client.read_flows() == []
    print(os.environ["PREFECT_API_URL"], flush=True)
    sys.stdin.read()
"""


def environment(home: Path) -> dict[str, str]:
    kept = without_users_servers()
    return {**kept, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


@pytest.mark.parametrize("number", [None, signal.SIGKILL], ids=["ends", "is killed"])
def test_it_is_for_one_command_and_ends_with_it(number: signal.Signals | None, tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path)],
        env=environment(tmp_path),
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout
    assert command.stdin
    api_url = command.stdout.readline().strip()
    [server] = psutil.Process(command.pid).children()
    for headers in ({}, {"host": "evil.example"}, {"origin": "http://127.0.0.1"}):
        answer = httpx.post(f"{api_url}/flows/filter", json={}, headers=headers, timeout=STALL_SECONDS)
        assert answer.status_code == 401
    assert "spaceport:" not in " ".join(server.cmdline())
    assert stat.S_IMODE((tmp_path / "prefect.db").stat().st_mode) & 0o077 == 0

    if number is None:
        command.stdin.close()
    else:
        command.send_signal(number)
    assert command.wait(STALL_SECONDS) == (0 if number is None else -number)
    eventually(lambda: not server.is_running(), "end of the server")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{api_url}/health", timeout=STALL_SECONDS)
    command.stdout.close()


def kill_server() -> None:
    [server] = [each for each in psutil.Process().children() if "--embedded" in each.cmdline()]
    server.kill()


def test_one_that_dies_is_started_again_and_once_too_often_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, said, ends = environment(tmp_path), list[str](), list[int]()
    monkeypatch.setattr(connection, "MAX_STARTS", 2)
    before = signal.signal(signal.SIGTERM, lambda number, _: ends.append(number))
    try:
        with EmbeddedServer(tmp_path, own).running(said.append):
            kill_server()  # and what is asked meanwhile is answered
            assert httpx.get(f"{own['PREFECT_API_URL']}/health", timeout=STALL_SECONDS).status_code == 200
            kill_server()
            eventually(lambda: ends, "end of the command")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert said == [
        "Prefect's server ended with status -9 and is started again.",
        "Prefect's server has ended 2 times, the last time with status -9.",
    ]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{own['PREFECT_API_URL']}/health", timeout=STALL_SECONDS)


def test_one_that_cannot_be_started_again_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, ends = list[str](), list[int]()
    embedded = EmbeddedServer(tmp_path, environment(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE)
    dead.wait(STALL_SECONDS)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = signal.signal(signal.SIGTERM, lambda number, _: ends.append(number))
    try:
        embedded._keep(dead, said.append)
    finally:
        signal.signal(signal.SIGTERM, before)
        embedded._listener.close()
    assert said[-1] == "Prefect's server cannot be started again (Cannot allocate memory)."
    assert ends == [signal.SIGTERM]


@pytest.mark.parametrize("answer", ["nothing listens", "it says nothing"])
def test_a_server_that_does_not_answer_is_one_sentence(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if answer == "it says nothing":
            silent.listen()
        port = silent.getsockname()[1] if answer == "it says nothing" else free_port()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
        settings = Settings(workspace=str(tmp_path / "ws"), home=tmp_path / "home")
        server = ServerOfRun(settings).running(lambda text: None)
        with pytest.raises(ServerError, match=f"The Prefect server at http://127.0.0.1:{port}/api does not answer"):
            server.__enter__()


def test_a_server_that_wants_another_login_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["Authorization"] == "Basic dXNlcjpyaWdodA==" else 401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    monkeypatch.delenv("PREFECT_API_KEY", raising=False)
    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/api"
            monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:right")
            connection.require_login(url)
            for wrong in ("", "user:wrong"):
                monkeypatch.setenv("PREFECT_API_AUTH_STRING", wrong)
                with pytest.raises(ServerError, match="wants a login: set PREFECT_API_AUTH_STRING"):
                    connection.require_login(url)
        finally:
            server.shutdown()
            thread.join()


def test_a_damaged_database_is_kept_aside_and_the_run_goes_on(tmp_path: Path) -> None:
    """Behind a proxy that cannot be reached, which a connection to this machine bypasses."""
    home, photos = tmp_path / "home", tmp_path / "photos"
    (home / "prefect").mkdir(parents=True)
    (home / "prefect" / "prefect.db").write_bytes(b"\xa5" * 50_000)
    for i in range(3):
        save_textured(photos / f"{i}.jpg", i)
    run = spaceport(home, "run", str(photos), HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    assert "Prefect's database was damaged" in run.stdout
    assert run.returncode == 2, run.stdout + run.stderr  # three textures are no capture, which the flow finds out
    assert "Traceback" not in run.stdout + run.stderr
    [aside] = (home / "prefect").glob("prefect.db.damaged-*")
    assert aside.read_bytes() == b"\xa5" * 50_000
