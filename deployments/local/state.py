"""Records of this machine's server, kept between commands.

    <home>/up/server.json, worker-cpu.json, worker-gpu.json, pages.json   the processes, each with a .log
    <home>/up/secrets.json                 deployments/local/access.py
    <home>/up/up.json                      ports and the plan, kept while the server is down for the next `up`
    <home>/up/kept.json                    deployments/local/keeper.py

Nothing here imports Prefect, which reads its settings when it is imported.
"""

import fcntl
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from deployments.local.processes import find, log_file
from deployments.local.server_settings import LEASES, is_own_database, retention
from deployments.plan import CPU, GPU, PREFIX, Plan
from tasks.core.errors import ServerError
from tasks.core.paths import private_folder, write_private
from tasks.running.settings import DEFAULT_KEEP_DAYS, HEARTBEAT_SECONDS

HOST = "127.0.0.1"
SERVER, PAGES = "server", "pages"
PAGES_URL = "SPACEPORT_PAGES_URL"  # has the pages' secret, which must not appear in process lists
WORKERS = {"worker-cpu": CPU, "worker-gpu": GPU}  # process -> work pool
KEEPER_SECONDS = 20.0  # with the lock, the keeper starts a process within one second
POLL_SECONDS = 0.1


class LocalServer(BaseModel):
    """The server of this machine, as it was last brought up."""

    model_config = ConfigDict(frozen=True)

    port: int
    pages_port: int | None  # null if there never were pages; there are none if the plan has no `pages_url`
    plan: Plan
    keep_days: int = DEFAULT_KEEP_DAYS  # how long ended runs stay in Prefect's database
    up: bool = True  # false once it was taken down

    @property
    def ui_url(self) -> str:
        """Address of the UI."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.ui_url}/api"

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of all processes, in the order in which they start."""
        return (SERVER, *([] if self.plan.pages_url is None else [PAGES]), *WORKERS)

    @property
    def choices(self) -> str:
        """All choices, as options of `spaceport up`; a URL to notify is cut to its host: the rest may be secret."""
        plan = self.plan
        options = [f"--workspace {shlex.quote(plan.workspace)}", f"--port {self.port}"]
        if self.pages_port is not None:
            options.append(f"--pages-port {self.pages_port}")
        options += [f"--cpu-slots {plan.cpu_slots}", f"--gpu-slots {plan.gpu_slots}"]
        options.append(f"--keep-days {self.keep_days}")
        if plan.dispatch is not None:
            options.append(f"--dispatch {shlex.quote(','.join(plan.dispatch))}")
        if plan.notify is not None:
            options.append(f"--notify {urlsplit(plan.notify).scheme}://{urlsplit(plan.notify).hostname}/…")
        if plan.hourly_cost_usd is not None:
            options.append(f"(SPACEPORT_HOURLY_COST_USD={plan.hourly_cost_usd:g})")
        return " ".join(options)


def worker_name(pool: str) -> str:
    """The name of this machine's worker for a pool."""
    return f"local-{pool.removeprefix(PREFIX)}"


def folder_of(home: Path) -> Path:
    """Return the folder of records and logs."""
    return home / "up"


def read_state(home: Path) -> LocalServer | None:
    """Return the server that was last brought up here, running or not. Raises ServerError if the record is damaged."""
    record = folder_of(home) / "up.json"
    try:
        return LocalServer.model_validate_json(record.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ServerError(
            f"{record} cannot be read ({error.errors()[0]['msg']}); remove it, and `spaceport up` begins with its "
            "defaults."
        ) from error


def write_state(home: Path, server: LocalServer) -> None:
    """Store the server's record for the next command."""
    folder = folder_of(home)
    private_folder(folder)
    write_private(folder / "up.json", server.model_dump_json(indent=1).encode())


def running_server(home: Path) -> LocalServer | None:
    """Return the server of this machine if its process lives."""
    server = read_state(home)
    return server if server is not None and server.up and find(SERVER, folder_of(home)) is not None else None


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Keep a second `up` or `down`, and the keeper, out while the block runs.

    Raises ServerError if another command is in progress. Waits for the keeper.
    """
    with _locked(home, "lock") as ours:
        if not ours:
            raise ServerError("Another `spaceport up` or `spaceport down` is at work; try again when it has ended.")
        with _locked(home, "keeper.lock", KEEPER_SECONDS) as free:
            if not free:
                raise ServerError(
                    f"The server has been starting a worker again for more than {KEEPER_SECONDS:.0f} s; try again in a "
                    f"minute. Its log is {log_file(folder_of(home), SERVER)}"
                )
            yield


@contextmanager
def unless_at_work(home: Path) -> Iterator[bool]:
    """Yield to the keeper whether no `up` or `down` is in progress; a new one waits for the end of the block."""
    with _locked(home, "keeper.lock") as free:
        yield free


@contextmanager
def _locked(home: Path, name: str, patience_seconds: float = 0.0) -> Iterator[bool]:
    """Try to hold the lock of that name while the block runs; yield whether this succeeded."""
    folder = folder_of(home)
    private_folder(folder)
    deadline = time.monotonic() + patience_seconds
    with (folder / name).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(POLL_SECONDS)
            else:
                yield True
                return


def process_environment(
    server: LocalServer, home: Path, inherited: Mapping[str, str], api_secret: str
) -> dict[str, str]:
    """Return the environment of the workers and the pages' server and, through the workers, of the runs."""
    # Removed: variables of this command alone, variables that the pools set, and credentials of other servers.
    not_theirs = (
        "PREFECT_LOGGING_HANDLERS_CONSOLE",
        "SPACEPORT_DISPATCH",
        "SPACEPORT_WORKSPACE",
        "PREFECT_API_KEY",
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS",
    )
    ours = {
        "SPACEPORT_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": server.api_url,
        "PREFECT_API_AUTH_STRING": api_secret,
        "PREFECT_UI_URL": server.ui_url,  # for links in notifications
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(server.port),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # After this time the server cleans up if a cancelled run does not react.
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "45",
        # The delay until the server cancels the stages of a run that could not do so itself.
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "5",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "5",
        "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",  # these are log files
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # as logs are read, whatever the terminal of `up` has
    }
    return {name: value for name, value in inherited.items() if not name.startswith(not_theirs)} | ours


def server_environment(server: LocalServer, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the server: that of the other processes, its own clients, and its clean-up.

    The user's own settings of the clean-up are kept, and a database other than ours is not cleaned up.
    """
    forgets = retention(server.keep_days) if is_own_database(environment) else {}
    return {
        **LEASES,
        **forgets,
        **environment,
        "PREFECT_SERVER_LOG_RETRYABLE_ERRORS": "true",  # otherwise its log has no line about an answer 503
        "PREFECT_SERVER_API_AUTH_STRING": environment["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{server.ui_url},http://localhost:{server.port}",
    }
