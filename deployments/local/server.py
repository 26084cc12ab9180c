"""Start and stop this machine's Prefect server, its workers and the server of the runs' pages."""

import asyncio
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
from pydantic import BaseModel, ConfigDict

from deployments.local.access import make_secrets, read_secrets, use_local_server
from deployments.local.companions import start_missing
from deployments.local.keeper import forget_kept
from deployments.local.prefect_database import make_ready, startup_error
from deployments.local.processes import find, kill, last_lines, log_file, start, stop
from deployments.local.state import (
    HOST,
    PAGES,
    SERVER,
    WORKERS,
    LocalServer,
    alone,
    folder_of,
    process_environment,
    read_state,
    running_server,
    server_environment,
    unless_at_work,
    write_state,
)
from deployments.plan import Plan
from tasks.core.errors import InputError, ServerError
from tasks.running.settings import DEFAULT_KEEP_DAYS

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEFAULT_PORT = 4200
LAST_PORT = 65535
UNASSIGNED_PORTS = range(10_000, 32_768)
ANY_PORT_TRIES = 100
START_SECONDS = 180.0  # a first start on a busy machine creates the database
STOP_SECONDS = 20.0
ANSWER_SECONDS = 12.0  # for an answer of a busy server
SILENT_STOP_SECONDS = 3.0  # for a server that does not answer and will hardly react to SIGTERM
POLL_SECONDS = 0.2

Say = Callable[[str], None]
EndRuns = Callable[["SyncPrefectClient"], None]


class Choices(BaseModel):
    """Options of `spaceport up`; None keeps the last choice, or takes the default."""

    model_config = ConfigDict(frozen=True)

    workspace: str | None = None
    port: int | None = None  # 0 takes a free one
    pages_port: int | None = None
    cpu_slots: int | None = None
    gpu_slots: int | None = None
    notify: str | None = None  # an empty string ends messages
    dispatch: tuple[str, ...] | None = None
    hourly_cost_usd: float | None = None
    keep_days: int | None = None


def bring_up(choices: Choices, home: Path, say: Say, *, reset: bool = False) -> tuple[LocalServer, list[str]]:
    """Start missing processes and correct differences. Returns the server and the changes.

    `reset` forgets earlier choices. This sets PREFECT_API_URL in this process, so Prefect must not have been imported
    yet. Raises InputError for a port that is taken or a reset while the server runs; ServerError, with the name of the
    log, if a process does not start.
    """
    with alone(home):
        folder = folder_of(home)
        if reset and find(SERVER, folder) is not None:
            raise InputError("The server runs; `spaceport down` first, then `spaceport up --reset`.")
        before = None if reset else read_state(home)
        runs = before is not None and find(SERVER, folder) is not None
        if before is not None and runs:
            _require_answer(before, folder)
        if runs and read_secrets(home) is None:
            raise ServerError(
                "The server was started by an earlier version, which lets every user of this machine in: "
                "`spaceport down`, then `spaceport up`."
            )
        if runs and _has_other_workers(folder):
            raise ServerError(
                "The workers were started by an earlier version, whose work pools have other names: `spaceport down`, "
                "then `spaceport up`."
            )
        # Runs that wait for a dead server keep using its secret, so the next server gets the same secret.
        keep = any(find(name, folder) is not None for name in (SERVER, *WORKERS))
        secrets = make_secrets(home, keep=keep)
        server = chosen(choices, before, folder, secrets.pages)
        if before is None or before.port != server.port:  # running processes still use the old port
            for name in (*WORKERS, SERVER):
                stop(name, folder, STOP_SECONDS)
        if before is None or (before.plan.workspace, before.plan.pages_url) != (
            server.plan.workspace,
            server.plan.pages_url,
        ):
            stop(PAGES, folder, STOP_SECONDS)
        if before is not None and runs and before.keep_days != server.keep_days:  # the server reads it when it starts
            say("stopping the Prefect server")
            stop(SERVER, folder, STOP_SECONDS)
            runs = False
        write_state(home, server)
        environment = process_environment(server, home, os.environ, secrets.api)
        use_local_server(server, home, os.environ)
        changes = []
        if not runs:
            if moved := make_ready(home / "prefect"):
                changes.append(moved)
            forget_kept(home)
            say("starting the Prefect server")
            command = [sys.executable, "-m", "deployments.local.prefect_server", "--keep", str(home)]
            start(SERVER, command, folder, server_environment(server, environment))
            changes.append("started the Prefect server")
        from deployments.apply import apply, apply_pools_only, planned_deployments
        from deployments.local.status import pages_answer

        deployments = planned_deployments(server.plan)
        _await_health(server, folder, say)
        say("creating work pools")
        changes += asyncio.run(apply_pools_only(server.plan))
        changes += start_missing(server, home, secrets, os.environ)
        say("creating deployments, blocks and automations")
        changes += asyncio.run(apply(server.plan, deployments))
        _await_workers(folder, say)
        if server.plan.pages_url is not None:
            _await(lambda: pages_answer(server), [PAGES], folder)
        return server, changes


def chosen(choices: Choices, before: LocalServer | None, folder: Path, pages_secret: str) -> LocalServer:
    """Return the server to start: the earlier one or the defaults, changed by the choices."""
    given = choices.model_dump(exclude={"port", "pages_port", "keep_days"}, exclude_none=True)
    if "notify" in given:
        given["notify"] = given["notify"] or None
    plan = Plan.model_validate({**(before.plan.model_dump() if before is not None else {}), **given})
    port = _port(choices, before, folder)
    keep_days = choices.keep_days or (DEFAULT_KEEP_DAYS if before is None else before.keep_days)
    if "://" in plan.workspace or plan.workspace.startswith("s3-bucket/"):
        pages_port = None if before is None else before.pages_port
        plan = plan.model_copy(update={"pages_url": None})
        return LocalServer(port=port, pages_port=pages_port, plan=plan, keep_days=keep_days)
    pages_port = _pages_port(choices, before, port, folder)
    if pages_port == port:
        raise InputError(f"Port {port} cannot serve both the UI and the pages; name another one with --pages-port.")
    plan = plan.model_copy(update={"pages_url": f"http://{HOST}:{pages_port}/{pages_secret}"})
    return LocalServer(port=port, pages_port=pages_port, plan=plan, keep_days=keep_days)


def _port(choices: Choices, before: LocalServer | None, folder: Path) -> int:
    """Return the UI's port. Raises InputError."""
    if before is not None and find(SERVER, folder) is not None:
        if choices.port not in (None, 0, before.port):
            raise InputError(
                f"The server already runs on port {before.port}; `spaceport down` first, to have it on port "
                f"{choices.port}."
            )
        return before.port
    usual = DEFAULT_PORT if before is None else before.port
    return _free_port(usual if choices.port is None else choices.port, "--port")


def _pages_port(choices: Choices, before: LocalServer | None, port: int, folder: Path) -> int:
    """Return the pages' port. It stays the same, since links in earlier runs' pages contain it. Raises InputError."""
    usual = None if before is None else before.pages_port
    if usual is not None and choices.pages_port in (None, usual):
        runs = find(PAGES, folder) is not None
        return usual if runs else _free_port(usual, "--pages-port")
    if choices.pages_port is not None:
        return _free_port(choices.pages_port, "--pages-port")
    return _free_port(0 if choices.port == 0 or port == LAST_PORT else port + 1, "--pages-port")


def _free_port(port: int, option: str) -> int:
    """Return the port if it is free, or any free one for 0. Raises InputError.

    Its server starts seconds later, so 0 takes a port that no system hands out to others in the meantime: those are
    above 32768 (https://en.wikipedia.org/wiki/Ephemeral_port).
    """
    if port == 0:
        for candidate in random.sample(UNASSIGNED_PORTS, ANY_PORT_TRIES):
            with suppress(InputError):
                return _free_port(candidate, option)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be used ({error.strerror}); name another one with {option}, or 0 for any."
            ) from error
        return int(probe.getsockname()[1])


def start_again(home: Path, name: str) -> bool:
    """Restart a worker or the pages' server, unless it runs. Makes this process a client of the server.

    Returns False if an `up` or a `down` is in progress, which starts and stops processes itself. Raises ServerError if
    the server does not answer.
    """
    server, secrets = running_server(home), read_secrets(home)
    if server is None or secrets is None:
        return False
    if not _answers(server, ANSWER_SECONDS):
        raise ServerError(f"The server at {server.ui_url} does not answer.")
    use_local_server(server, home, os.environ)
    from deployments.local import queue  # noqa: F401 - imported before taking the lock, since the import takes seconds

    with unless_at_work(home) as free:
        if not free or running_server(home) != server:
            return False
        start_missing(server, home, secrets, os.environ, [name])
        return True


def _client(server: LocalServer, home: Path) -> "SyncPrefectClient":
    """Return a client of this server, whatever Prefect has read from the environment.

    Without an address, Prefect's own `get_client` starts another server on the same database, open to every user.
    """
    from prefect.client.orchestration import SyncPrefectClient

    secrets = read_secrets(home)
    return SyncPrefectClient(server.api_url, auth_string=None if secrets is None else secrets.api)


def _await_health(server: LocalServer, folder: Path, say: Say) -> None:
    say("waiting for the Prefect server")
    _await(lambda: _answers(server), [SERVER], folder)


def _require_answer(server: LocalServer, folder: Path) -> None:
    """Raise ServerError if a server that has had enough time to start does not answer."""
    process = find(SERVER, folder)
    starts = process is not None and time.time() - process.created_at < START_SECONDS
    if not starts and not _answers(server, ANSWER_SECONDS):
        raise ServerError(
            f"The server runs and has not answered within {ANSWER_SECONDS:.0f} s: `spaceport down --now` stops it, "
            f"`spaceport up` starts it again. Its log is {log_file(folder, SERVER)}"
        )


def _has_other_workers(folder: Path) -> bool:
    """Whether a running worker takes its runs from a pool other than its own."""
    for name, pool in WORKERS.items():
        worker = find(name, folder)
        process = None if worker is None else worker.process()
        with suppress(psutil.NoSuchProcess):
            command = [] if process is None else process.cmdline()
            if "--pool" in command and pool not in command:
                return True
    return False


def _answers(server: LocalServer, patience_seconds: float = 5.0) -> bool:
    try:
        return httpx.get(f"{server.api_url}/health", timeout=patience_seconds, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _await_workers(folder: Path, say: Say) -> None:
    from deployments.local.status import workers_heard_of

    say("waiting for the workers")
    started = {pool: process.created_at for name, pool in WORKERS.items() if (process := find(name, folder))}
    _await(lambda: workers_heard_of(started) >= set(WORKERS.values()), list(WORKERS), folder)


def _await(ready: Callable[[], bool], names: list[str], folder: Path) -> None:
    """Wait until `ready`. Raises ServerError if one of the processes ends, or after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        for name in names:
            if find(name, folder) is None:
                if name == SERVER:
                    log = log_file(folder, name).read_text(encoding="utf-8", errors="replace")
                    raise startup_error(log, folder.parent / "prefect")
                raise ServerError(
                    f"The {name} ended while it started: {last_lines(folder, name)} (log: {log_file(folder, name)})"
                )
        if time.monotonic() > deadline:
            raise ServerError(
                f"The {names[0]} has not become ready within {START_SECONDS:.0f} s; `spaceport up` again waits "
                f"on, its log is {log_file(folder, names[0])}"
            )
        time.sleep(POLL_SECONDS)


def take_down(home: Path, say: Say, end_runs: EndRuns, *, now: bool) -> list[str]:
    """Stop everything that `bring_up` started, the workers first. Returns the names of the processes that ran.

    `end_runs` ends the runs in progress, or raises to stop nothing; meanwhile no worker takes a new run. Waiting runs
    continue after the next `bring_up`, which keeps ports and choices. Raises ServerError if the server does not answer
    the question for runs in progress, unless `now`.
    """
    with alone(home):
        folder = folder_of(home)
        stopped = []
        server = running_server(home)
        answers = server is not None and _answers(server, ANSWER_SECONDS)
        if server is not None and not answers and not now:
            raise ServerError(
                f"The server has not answered within {ANSWER_SECONDS:.0f} s, so it is not known whether runs are in "
                "progress; `spaceport down --now` stops it regardless."
            )
        if server is not None and answers:
            use_local_server(server, home, os.environ)
            from deployments.local.queue import held, put_back  # imports Prefect, which then reads the server's address

            with _client(server, home) as client, held(client, list(WORKERS.values())):
                end_runs(client)
                for name in WORKERS:
                    say(f"stopping {name}")
                    if kill(name, folder):
                        stopped.append(name)
                put_back(client, list(WORKERS.values()), begun=True)
        silent = server is not None and not answers
        patience_seconds = SILENT_STOP_SECONDS if silent else STOP_SECONDS
        for name in (*WORKERS, PAGES, SERVER):
            if name not in stopped:
                say(f"stopping {name}")
                # A worker that cannot reach its server only waits, so it can be stopped quickly.
                if kill(name, folder) if silent and name in WORKERS else stop(name, folder, patience_seconds):
                    stopped.append(name)
        remembered = read_state(home)
        if remembered is not None:
            write_state(home, remembered.model_copy(update={"up": False}))
        forget_kept(home)
        return stopped
