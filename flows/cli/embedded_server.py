"""A Prefect server that belongs to one command: started by it, used by it alone, gone with it however it ends."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from deployments.local.prefect_database import startup_error
from deployments.local.server_settings import LEASES, retention
from tasks.core.errors import ServerError

HOST = "127.0.0.1"
START_SECONDS = 180.0  # a first start on a busy machine creates the database
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
MAX_STARTS = 4  # a server that ends again and again would not serve the rest of a run either


class EmbeddedServer:
    """The server of this process, which is its client from the moment when the object is made.

    To be made before Prefect is imported, which reads its settings once. The server answers those who have its secret,
    which is made here.
    """

    def __init__(self, prefect_home: Path, environment: MutableMapping[str, str], keep_days: int | None = None) -> None:
        """`prefect_home` holds the database, `environment` is this process's.

        Runs that ended so many days ago are removed; none are without `keep_days`.
        """
        self._home, self._environment, self._keep_days = prefect_home, environment, keep_days
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        self._api_url = f"http://{HOST}:{self._listener.getsockname()[1]}/api"
        self._secret = f"spaceport:{secrets.token_urlsafe(32)}"
        self._ends = threading.Event()
        environment.pop("PREFECT_API_KEY", None)  # of Prefect Cloud
        environment["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"  # Prefect's own one would let every user in
        environment["PREFECT_API_URL"], environment["PREFECT_API_AUTH_STRING"] = self._api_url, self._secret

    @contextmanager
    def running(self, say: Callable[[str], None]) -> Iterator[None]:
        """Let it run for the block. One that dies meanwhile is started again, at the same address.

        `say` is called with a sentence about that. Raises ServerError, DiskFullError when it does not start.
        """
        self._listener.listen()  # and is kept open: requests wait there while no server takes them
        with tempfile.TemporaryFile() as log:
            server = self._start(log)
            try:
                _await_health(server, self._api_url, log, self._home)
            except BaseException:
                _stop(server)
                raise
        keeper = threading.Thread(target=self._keep, args=(server, say), name="Prefect server", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            try:
                _deliver_events()
            finally:
                self._ends.set()
                keeper.join()
                self._listener.close()

    def _start(self, log: IO[bytes] | int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "deployments.local.prefect_server", "--embedded", str(self._listener.fileno())],
            cwd=Path(__file__).parents[1],
            env={
                **LEASES,
                **({} if self._keep_days is None else retention(self._keep_days)),
                **self._environment,
                "PREFECT_SERVER_API_AUTH_STRING": self._secret,
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}",
            },
            stdin=subprocess.PIPE,  # whose end tells the server that this process is gone
            stdout=log,
            stderr=log,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,  # Ctrl-C is for the run, which tells the server how it ended
        )

    def _keep(self, server: "subprocess.Popen[bytes]", say: Callable[[str], None]) -> None:
        """Start the server again where it dies, until `running` ends."""
        starts = 1
        while not self._ends.wait(POLL_SECONDS):
            if server.poll() is None:
                continue
            _stop(server)
            if starts == MAX_STARTS:
                say(f"Prefect's server has ended {starts} times, the last time with status {server.returncode}.")
                os.kill(os.getpid(), signal.SIGTERM)  # the command's orderly end
                return
            say(f"Prefect's server ended with status {server.returncode} and is started again.")
            try:
                server, starts = self._start(subprocess.DEVNULL), starts + 1
            except OSError as error:  # no memory, or no further process
                say(f"Prefect's server cannot be started again ({error.strerror}).")
                os.kill(os.getpid(), signal.SIGTERM)
                return
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
