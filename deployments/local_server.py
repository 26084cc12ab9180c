"""This machine's Prefect server with its workers and the pages of the runs: up and down."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import BaseModel, ConfigDict

from deployments.local_state import (
    HOST,
    PAGES,
    SERVER,
    WORKERS,
    LocalServer,
    alone,
    folder_of,
    forget_state,
    process_environment,
    read_state,
    running_server,
    write_state,
)
from deployments.plan import Plan
from deployments.processes import find, last_lines, log_file, start, stop
from tasks.core.errors import InputError, ServerError

DEFAULT_PORT = 4200
START_SECONDS = 180.0  # a first start on a busy machine creates the database
STOP_SECONDS = 20.0
POLL_SECONDS = 0.2

Say = Callable[[str], None]


class Choices(BaseModel):
    """What the person who types `spaceport up` asks for; None keeps what is, or takes the default."""

    model_config = ConfigDict(frozen=True)

    workspace: str | None = None
    port: int | None = None  # 0 takes a free one
    pages_port: int | None = None
    cpu_slots: int | None = None
    gpu_slots: int | None = None
    notify: str | None = None  # an empty string: nobody any more
    dispatch: tuple[str, ...] | None = None
    hourly_cost_usd: float | None = None


def bring_up(choices: Choices, home: Path, say: Say) -> tuple[LocalServer, list[str]]:
    """Start what does not run and correct what differs; gives the server and what changed.

    Sets PREFECT_API_URL of this process, so Prefect must not have been imported yet. Raises InputError for a port that
    is taken and ServerError when something does not start; the sentence names the log.
    """
    with alone(home):
        folder = folder_of(home)
        before = read_state(home)  # of a server that has died too: its workers wait for it at its port
        runs = running_server(home) is not None
        server = _chosen(choices, before, runs)
        if before is not None and before.port != server.port:
            for name in WORKERS:
                stop(name, folder, STOP_SECONDS)
        write_state(home, server)
        environment = process_environment(server, home, os.environ)
        os.environ["PREFECT_API_URL"] = server.api_url
        changes = []
        if not runs:
            say("starting the Prefect server")
            start(SERVER, [sys.executable, "-m", "deployments.prefect_server"], folder, environment)
            changes.append("started the Prefect server")
        from deployments.apply import apply, apply_pools_only, planned_deployments

        deployments = planned_deployments(server.plan)
        _await_health(server, folder, say)
        say("creating work pools")
        changes += asyncio.run(apply_pools_only(server.plan))
        if before is not None and before.plan.workspace != server.plan.workspace:
            stop(PAGES, folder, STOP_SECONDS)
        changes += _start_companions(server, folder, environment)
        say("creating deployments, blocks and automations")
        changes += asyncio.run(apply(server.plan, deployments))
        _await_workers(folder, say)
        return server, changes


def _chosen(choices: Choices, before: LocalServer | None, runs: bool) -> LocalServer:
    """The server to be: what was there before, changed by the choices, or the defaults, changed by the choices."""
    if before is not None and runs and choices.port not in (None, 0, before.port):
        raise InputError(
            f"The server already runs on port {before.port}; `spaceport down` first, to have it on port {choices.port}."
        )
    given = choices.model_dump(exclude={"port", "pages_port"}, exclude_none=True)
    if "notify" in given:
        given["notify"] = given["notify"] or None
    if before is not None:
        plan = before.plan.model_copy(update=given)
        port, pages_port = before.port, before.pages_port
        if not runs:
            port = _free_port(choices.port or port, "--port")
    else:
        plan = Plan(**given)
        port = _free_port(DEFAULT_PORT if choices.port is None else choices.port, "--port")
        pages_port = None
    if "://" in plan.workspace or plan.workspace.startswith("s3-bucket/"):
        return LocalServer(port=port, pages_port=None, plan=plan.model_copy(update={"pages_url": None}))
    if pages_port is None:
        wanted = choices.pages_port if choices.pages_port is not None else (port + 1 if choices.port != 0 else 0)
        pages_port = _free_port(wanted, "--pages-port")
    plan = plan.model_copy(update={"pages_url": f"http://{HOST}:{pages_port}"})
    return LocalServer(port=port, pages_port=pages_port, plan=Plan.model_validate(plan.model_dump()))


def _free_port(port: int, option: str) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be used ({error.strerror}); name another one with {option}, or 0 for any."
            ) from error
        return int(probe.getsockname()[1])


def _start_companions(server: LocalServer, folder: Path, environment: dict[str, str]) -> list[str]:
    """Workers and pages, those that do not run."""
    commands = {
        name: ["prefect", "worker", "start", "--pool", pool, "--name", f"local-{pool}", "--type", "process"]
        for name, pool in WORKERS.items()
    }
    if server.pages_port is not None:
        runs = str(Path(server.plan.workspace) / "runs")
        commands[PAGES] = ["deployments.pages", runs, str(server.pages_port)]
    missing = [name for name in commands if find(name, folder) is None]
    for name in missing:
        start(name, [sys.executable, "-m", *commands[name]], folder, environment)
    return [f"started {name}" for name in missing]


def _await_health(server: LocalServer, folder: Path, say: Say) -> None:
    say("waiting for the Prefect server")

    def healthy() -> bool:
        try:
            return httpx.get(f"{server.api_url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    _await(healthy, [SERVER], folder)


def _await_workers(folder: Path, say: Say) -> None:
    from deployments.status import workers_heard_of

    say("waiting for the workers")
    started = {pool: process.created_at for name, pool in WORKERS.items() if (process := find(name, folder))}
    _await(lambda: workers_heard_of(started) >= set(WORKERS.values()), list(WORKERS), folder)


def _await(ready: Callable[[], bool], names: list[str], folder: Path) -> None:
    """Raises ServerError when one of the processes ends or nothing happens for START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        for name in names:
            if find(name, folder) is None:
                raise ServerError(
                    f"The {name} ended while it started: {last_lines(folder, name)} (log: {log_file(folder, name)})"
                )
        if time.monotonic() > deadline:
            raise ServerError(
                f"The {names[0]} has not become ready within {START_SECONDS:.0f} s; `spaceport up` again goes on "
                f"waiting, its log is {log_file(folder, names[0])}"
            )
        time.sleep(POLL_SECONDS)


def take_down(home: Path, say: Say) -> list[str]:
    """Stop everything that `bring_up` started, the workers first; gives the names of what ran."""
    with alone(home):
        folder = folder_of(home)
        stopped = []
        for name in (*WORKERS, PAGES, SERVER):
            say(f"stopping {name}")
            if stop(name, folder, STOP_SECONDS):
                stopped.append(name)
        forget_state(home)
        return stopped
