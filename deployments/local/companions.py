"""Start the companions of this machine's server: a worker for each pool, and the server of a local workspace's pages.

`python -m deployments.local.companions FOLDER` serves the pages of all runs over HTTP. Their address is
SPACEPORT_PAGES_URL, http://127.0.0.1:PORT/SECRET. It is passed in the environment, because every user of the machine
can list the arguments of processes.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from deployments.local.access import Secrets
from deployments.local.processes import find, start
from deployments.local.state import PAGES, PAGES_URL, WORKERS, LocalServer, folder_of, process_environment, worker_name
from tasks.core.errors import OptionsError
from tasks.core.viewer.serve import open_server
from tasks.running.settings import Settings


def start_missing(
    server: LocalServer, home: Path, secrets: Secrets, inherited: Mapping[str, str], names: Sequence[str] | None = None
) -> list[str]:
    """Start the companions that do not run, of these names or all. This process must be a client of the server.

    Runs that a dead worker had taken are put back into their queue first. Returns a line for each change.
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
        commands[PAGES] = ["deployments.local.companions", str(Path(server.plan.workspace) / "runs")]
    return commands


def main(folder: str) -> None:
    """Serve only this folder, until SIGTERM. Raises OptionsError, InputError."""
    for place in (Path(folder).parent, Path(folder)):  # the workspace, and its runs
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    address = urlsplit(Settings().pages_url or "")
    if not address.path.strip("/"):
        raise OptionsError("SPACEPORT_PAGES_URL has to say http://127.0.0.1:PORT/SECRET.")
    with open_server(Path(folder), address.port or 0, address.path.strip("/")) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
