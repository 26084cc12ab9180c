"""The Prefect server of a command: the one in PREFECT_API_URL, else this machine's, else one of the command's own."""

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

from deployments.local.access import use_local_server
from deployments.local.prefect_database import make_ready, startup_error
from deployments.local.server_settings import LEASES, is_own_database, retention
from deployments.local.state import LocalServer, read_state, running_server
from flows.cli.prefect_variables import configure_prefect
from tasks.core.errors import ServerError
from tasks.running.settings import DEFAULT_KEEP_DAYS, Settings, use_settings

ANSWER_SECONDS = 10.0  # then the command reports an error instead of waiting forever
# Commands that only read have less patience than Prefect's default for runs, which is six times a minute.
QUICK = {"PREFECT_API_REQUEST_TIMEOUT": "15", "PREFECT_CLIENT_MAX_RETRIES": "1"}
# For the command's own server:
HOST = "127.0.0.1"
START_SECONDS = 180.0  # a first start on a busy machine creates the database
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
MAX_STARTS = 4  # a server that ends again and again would not serve the rest of a run either


def use_prefect(settings: Settings) -> Settings:
    """Choose the server of this process and return the settings that its runs use.

    Call it before Prefect is imported. Raises ServerError.
    """
    server = running_server(settings.home)
    if server is not None and os.environ.get("PREFECT_API_URL") in (None, server.api_url):
        use_local_server(server, settings.home, os.environ)
        if settings.absolute_workspace == server.plan.workspace and settings.pages_url is None:
            settings = settings.model_copy(update={"pages_url": server.plan.pages_url})
    configure_prefect(settings)
    return use_settings(settings)


def use_up_server(server: LocalServer, settings: Settings) -> None:
    """Make this process a client of `spaceport up`'s server, whatever PREFECT_API_URL says.

    Call it before Prefect is imported. Raises ServerError.
    """
    use_local_server(server, settings.home, os.environ)
    configure_prefect(settings)


class ServerOfRun:
    """The server for a flow in this process: the one that `use_prefect` chose, else one of its own.

    Create it before Prefect is imported. Raises ServerError.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings = use_prefect(settings)
        self._url = os.environ.get("PREFECT_API_URL")
        local = running_server(settings.home)
        is_local = local is not None and local.api_url == self._url
        self._way_out = (
            "`spaceport down --now` stops it, `spaceport up` starts it again."
            if is_local
            else "without PREFECT_API_URL none is needed."
        )
        self._home = Path(os.environ["PREFECT_HOME"])
        self._embedded = EmbeddedServer(self._home, os.environ, _keep_days(settings)) if self._url is None else None

    @contextmanager
    def running(self, say: Callable[[str], None]) -> Iterator[None]:
        """Keep the server running at least as long as the block.

        Raises ServerError if the server does not answer, rejects this process's login or does not start, and
        DiskFullError if its disk is full.
        """
        if self._embedded is None:
            url = str(self._url)
            say(f"shown at {url.removesuffix('/api')}")
            if not answers(url):
                raise ServerError(f"The Prefect server at {url} does not answer; {self._way_out}")
            require_login(url)
            yield
            return
        say("starting Prefect in this process …")
        if is_own_database(os.environ) and (moved := make_ready(self._home)):
            say(moved)
        with self._embedded.running(say):
            yield


def _keep_days(settings: Settings) -> int | None:
    """Days for which ended runs stay in the database of a run in a terminal; None for a database of the user's own.

    The database is shared with `spaceport up`, so its `--keep-days` applies here too.
    """
    if Path(os.environ["PREFECT_HOME"]) != settings.home / "prefect" or not is_own_database(os.environ):
        return None
    remembered = read_state(settings.home)
    return settings.keep_days or (DEFAULT_KEEP_DAYS if remembered is None else remembered.keep_days)


def ask_quickly() -> None:
    """Make this process wait for seconds, not minutes. Call it before Prefect is imported."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)


def use_server(settings: Settings) -> Settings:
    """Choose a server that is already running, and return the settings of its runs.

    Raises ServerError if there is none, if it does not answer, or if it rejects this process's login.
    """
    settings = use_prefect(settings)
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        raise ServerError("No Prefect server runs here: start one with `spaceport up`, or name one in PREFECT_API_URL.")
    if not answers(url):
        raise ServerError(
            f"The Prefect server at {url} does not answer; `spaceport status` shows this machine's, `spaceport up` "
            "starts what has died."
        )
    require_login(url)
    local = running_server(settings.home)
    if local is None or local.api_url != url:
        return settings
    return use_settings(
        settings.model_copy(update={"workspace": local.plan.workspace, "pages_url": local.plan.pages_url})
    )


def server_address() -> str | None:
    """Address of this process's server; None before it has one."""
    return os.environ.get("PREFECT_API_URL")


def server_answers() -> bool:
    """Whether the server of this process answers."""
    return answers(server_address() or "")


def answers(api_url: str) -> bool:
    """Whether a server answers at this address."""
    try:
        return httpx.get(f"{api_url.rstrip('/')}/health", timeout=ANSWER_SECONDS).status_code == 200
    except httpx.TransportError:
        return False


def require_login(api_url: str) -> None:
    """Raise ServerError if the server rejects this process's login. Prefect Cloud is not asked."""
    if os.environ.get("PREFECT_API_KEY"):
        return
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    try:
        answer = httpx.get(f"{api_url.rstrip('/')}/admin/version", auth=(user, password), timeout=ANSWER_SECONDS)
    except httpx.TransportError:
        return  # its next request says so
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise ServerError(
            f"The Prefect server at {api_url} wants a login: set PREFECT_API_AUTH_STRING to its user:password. The "
            "server of `spaceport up` is found without PREFECT_API_URL."
        )


class EmbeddedServer:
    """A Prefect server that one command starts and uses alone, and that ends with it however the command ends.

    This process becomes its client when the object is created. Create it before Prefect is imported, because Prefect
    reads its settings once. The server answers only requests that carry its secret, which is made here.
    """

    def __init__(self, prefect_home: Path, environment: MutableMapping[str, str], keep_days: int | None = None) -> None:
        """Make this process a client of the server, which is not started yet.

        Args:
            prefect_home: folder of the database.
            environment: of this process.
            keep_days: runs that ended longer ago are removed; None removes none.
        """
        self._home, self._environment, self._keep_days = prefect_home, environment, keep_days
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        self._api_url = f"http://{HOST}:{self._listener.getsockname()[1]}/api"
        self._secret = f"spaceport:{secrets.token_urlsafe(32)}"
        self._ends = threading.Event()
        environment.pop("PREFECT_API_KEY", None)  # of Prefect Cloud
        environment["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"  # whatever the user has set
        environment["PREFECT_API_URL"], environment["PREFECT_API_AUTH_STRING"] = self._api_url, self._secret

    @contextmanager
    def running(self, say: Callable[[str], None]) -> Iterator[None]:
        """Run the server while the block runs. If it dies, it is started again at the same address.

        `say` is called with a sentence about each restart. Raises ServerError or DiskFullError if it does not start.
        """
        self._listener.listen()  # it stays open, so that requests wait in it while the server restarts
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
            cwd=Path(__file__).parents[2],
            env={
                **({} if self._keep_days is None else retention(self._keep_days)),
                **LEASES,
                **self._environment,
                "PREFECT_SERVER_API_AUTH_STRING": self._secret,
                "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}",
            },
            stdin=subprocess.PIPE,  # the server ends when it is closed, as when this process dies
            stdout=log,
            stderr=log,
            pass_fds=[self._listener.fileno()],
            start_new_session=True,  # Ctrl-C is for the run, which still reports its end to the server
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
    while not _is_healthy(api_url):
        if server.poll() is not None:
            log.seek(0)
            raise startup_error(log.read().decode(errors="replace"), prefect_home)
        if time.monotonic() > deadline:
            raise ServerError(f"Prefect's server has not become ready within {START_SECONDS:.0f} s; try again.")
        time.sleep(POLL_SECONDS)


def _is_healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _deliver_events() -> None:
    """Let Prefect's threads send the events and log lines that they have queued, while the server still answers."""
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
