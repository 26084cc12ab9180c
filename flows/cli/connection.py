"""Which Prefect server a command talks to: PREFECT_API_URL's, else this machine's, else one inside the command."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from deployments.local.access import use_local_server
from deployments.local.prefect_database import make_ready
from deployments.local.retention import is_own_database
from deployments.local.state import read_state, running_server
from flows.cli.embedded_server import EmbeddedServer
from tasks.core.errors import ServerError
from tasks.core.settings import DEFAULT_KEEP_DAYS, Settings, configure_prefect

ANSWER_SECONDS = 10.0  # for a sentence instead of a wait for something that never comes
# A command that only asks has less patience than Prefect's own, which is for runs: a minute, six times.
QUICK = {"PREFECT_API_REQUEST_TIMEOUT": "15", "PREFECT_CLIENT_MAX_RETRIES": "1"}


def use_prefect(settings: Settings) -> None:
    """Choose the server of this process; to be called before Prefect is imported. Raises ServerError."""
    server = running_server(settings.home)
    if server is not None and os.environ.get("PREFECT_API_URL") in (None, server.api_url):
        use_local_server(server, settings.home, os.environ)
        if settings.absolute_workspace == server.plan.workspace and server.plan.pages_url is not None:
            os.environ.setdefault("SPACEPORT_PAGES_URL", server.plan.pages_url)
    configure_prefect(settings)


class ServerOfRun:
    """The server for a flow in this process: the one of `use_prefect`, else one of its own.

    To be made before Prefect is imported. Raises ServerError.
    """

    def __init__(self, settings: Settings) -> None:
        use_prefect(settings)
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
        """It runs at least as long as the block.

        Raises ServerError when it does not answer, does not let this process in or does not start, DiskFullError when
        its disk has no room.
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
    """How long ended runs stay in the database of a run in a terminal; None where it is a person's own.

    It is the database of `spaceport up`, so its choice counts here too.
    """
    if Path(os.environ["PREFECT_HOME"]) != settings.home / "prefect" or not is_own_database(os.environ):
        return None
    remembered = read_state(settings.home)
    return settings.keep_days or (DEFAULT_KEEP_DAYS if remembered is None else remembered.keep_days)


def ask_quickly() -> None:
    """Make this process wait for seconds, not minutes; to be called before Prefect is imported."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)


def use_server(settings: Settings) -> Settings:
    """Choose a server that runs by itself, and give the settings of its runs.

    Raises ServerError when there is none, or it does not answer or does not let this process in.
    """
    use_prefect(settings)
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
    return settings.model_copy(update={"workspace": local.plan.workspace, "pages_url": local.plan.pages_url})


def server_address() -> str | None:
    """Where the server of this process is; None before it has one."""
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
    """Raises ServerError when a server wants another login than this process has. Prefect Cloud is not asked."""
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
