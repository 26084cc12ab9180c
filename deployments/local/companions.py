"""Start what accompanies this machine's server: a worker for each pool, and the pages of a local workspace."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployments.local.access import Secrets
from deployments.local.processes import find, start
from deployments.local.state import PAGES, PAGES_URL, WORKERS, LocalServer, folder_of, process_environment, worker_name


def start_missing(
    server: LocalServer, home: Path, secrets: Secrets, inherited: Mapping[str, str], names: Sequence[str] | None = None
) -> list[str]:
    """Start those that do not run, of these names or all, when this process is a client of the server.

    Runs that their worker had taken when it died go back into their queue first. Returns a line for each change.
    """
    from prefect.client.orchestration import get_client

    from deployments.local.queue import put_back

    folder = folder_of(home)
    commands = _commands(server)
    missing = [name for name in names or commands if name in commands and find(name, folder) is None]
    changes = []
    if pools := [WORKERS[name] for name in missing if name in WORKERS]:
        with get_client(sync_client=True) as client:
            changes += put_back(client, pools, begun=False)
    environment = process_environment(server, home, inherited, secrets.api)
    for name in missing:
        own = {PAGES_URL: str(server.plan.pages_url)} if name == PAGES else {}
        start(name, [sys.executable, "-m", *commands[name]], folder, {**environment, **own})
    return [*changes, *(f"started {name}" for name in missing)]


def _commands(server: LocalServer) -> dict[str, list[str]]:
    commands = {
        name: ["prefect", "worker", "start", "--pool", pool, "--name", worker_name(pool), "--type", "process"]
        for name, pool in WORKERS.items()
    }
    if server.plan.pages_url is not None:
        commands[PAGES] = ["deployments.local.pages", str(Path(server.plan.workspace) / "runs")]
    return commands
