"""A Prefect server that belongs to one command: started by it, used by it alone, gone with it however it ends."""

import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from deployments.prefect_database import startup_error
from tasks.core.errors import ServerError

HOST = "127.0.0.1"
START_SECONDS = 180.0  # a first start on a busy machine creates the database
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
OWN_VARIABLES = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING")


@contextmanager
def embedded_server(prefect_home: Path, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Run a server while the block runs, and make this process its client.

    To be entered before Prefect is imported. The server answers those who have its secret, which is made here.
    `prefect_home` holds its database. Raises ServerError, DiskFullError when it does not start.
    """
    secret = f"spaceport:{secrets.token_urlsafe(32)}"
    environment.pop("PREFECT_API_KEY", None)  # of Prefect Cloud
    with socket.socket() as listener, tempfile.TemporaryFile() as log:
        listener.bind((HOST, 0))
        listener.listen()
        api_url = f"http://{HOST}:{listener.getsockname()[1]}/api"
        server = subprocess.Popen(
            [sys.executable, "-m", "deployments.prefect_server", "--embedded", str(listener.fileno())],
            cwd=Path(__file__).parents[1],
            env={
                **environment,
                "PREFECT_API_URL": api_url,
                "PREFECT_API_AUTH_STRING": secret,
                "PREFECT_SERVER_API_AUTH_STRING": secret,
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}",
                "PREFECT_SERVER_UI_ENABLED": "false",
            },
            stdin=subprocess.PIPE,  # whose end tells the server that this process is gone
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C is for the run, which tells the server how it ended
        )
        try:
            _await_health(server, api_url, log, prefect_home)
            environment.update(dict(zip(OWN_VARIABLES, (api_url, secret), strict=True)))
            yield
        finally:
            _deliver_events()
            for name in OWN_VARIABLES:
                environment.pop(name, None)
            _stop(server)


def _await_health(server: subprocess.Popen[bytes], api_url: str, log: IO[bytes], prefect_home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(api_url):
        if server.poll() is not None:
            log.seek(0)
            raise startup_error(log.read().decode(errors="replace"), prefect_home)
        if time.monotonic() > deadline:
            raise ServerError(f"Prefect's server has not become ready within {START_SECONDS:.0f} s; try again.")
        time.sleep(POLL_SECONDS)


def _answers(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _deliver_events() -> None:
    """Let Prefect's threads send the events and log lines that they still hold, while the server answers."""
    if "prefect.events.worker" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=STOP_SECONDS)
    APILogWorker.drain_all(timeout=STOP_SECONDS)


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.stdin is not None:
        server.stdin.close()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
