"""State of this machine's server and its companions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from deployments.local.keeper import PAUSES_SECONDS, Kept, read_kept
from deployments.local.processes import find, log_file
from deployments.local.state import PAGES, SERVER, WORKERS, LocalServer, folder_of, worker_name
from deployments.pools import POOLS
from tasks.core.viewer.serve import SERVER_NAME

ANSWER_SECONDS = 8.0  # of the server, and of the pages
SILENT_SECONDS = 60.0  # a worker sends a heartbeat every ten


@dataclass(frozen=True)
class Part:
    """One line of `spaceport status`."""

    name: str
    ok: bool
    says: str
    paused: bool = False  # paused by a person, so nothing is wrong


def examine(server: LocalServer, home: Path) -> list[Part]:
    """Check every process, the pools and the runs. PREFECT_API_URL must name this server."""
    folder = folder_of(home)
    parts = []
    healthy = _answers(f"{server.api_url}/health")
    running = find(SERVER, folder)
    if running is None:
        parts.append(Part(SERVER, False, f"does not run; its log: {log_file(folder, SERVER)}"))
    else:
        says = server.ui_url if healthy else f"does not answer; its log: {log_file(folder, SERVER)}"
        parts.append(Part(SERVER, healthy, f"{says}  pid {running.pid}"))
    kept = read_kept(home)
    if server.plan.pages_url is not None:
        parts.append(_pages(server, _process(PAGES, folder, kept), folder))
    workers = [_process(name, folder, kept) for name in WORKERS]
    if not healthy:
        return parts + workers
    with get_client(sync_client=True) as client:
        parts += [_worker(client, part) for part in workers]
        return parts + [part for pool in POOLS for part in _pool(client, server, pool)]


def _process(name: str, folder: Path, kept: Mapping[str, Kept]) -> Part:
    found = find(name, folder)
    did = kept.get(name, Kept())
    if found is None and did.given_up is not None:
        tries = len(PAUSES_SECONDS)
        return Part(name, False, f"died again after {tries} starts: {did.given_up}; its log: {log_file(folder, name)}")
    if found is None:
        return Part(name, False, f"does not run; its log: {log_file(folder, name)}")
    again = f", started again at {did.last:%Y-%m-%d %H:%M} UTC (it died {did.restarts}×)" if did.last else ""
    return Part(name, True, f"pid {found.pid}{again}")


def _worker(client: SyncPrefectClient, part: Part) -> Part:
    name = part.name
    if not part.ok:
        return part
    try:
        workers = client.read_workers_for_work_pool(WORKERS[name])
    except ObjectNotFound:  # reported in the pool's own line
        workers = []
    heard = [
        worker.last_heartbeat_time
        for worker in workers
        if worker.name == worker_name(WORKERS[name]) and worker.last_heartbeat_time is not None
    ]
    silence = (datetime.now(UTC) - max(heard)).total_seconds() if heard else None
    ok = silence is not None and silence < SILENT_SECONDS
    return Part(name, ok, f"{part.says}, heard of {'never' if silence is None else f'{silence:.0f} s ago'}")


def _pages(server: LocalServer, part: Part, folder: Path) -> Part:
    url = str(server.plan.pages_url)
    if part.ok and not pages_answer(server):
        return Part(PAGES, False, f"does not answer at {url}; its log: {log_file(folder, PAGES)}")
    return Part(PAGES, part.ok, f"{url}  {part.says}" if part.ok else part.says)


def _pool(client: SyncPrefectClient, server: LocalServer, name: str) -> Iterator[Part]:
    """Yield the part of a pool, and parts of its paused queues."""
    resume = "spaceport prefect"
    where = f"in the UI ({server.ui_url}/work-pools/work-pool/{name})"
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        yield Part(f"pool {name}", False, "is gone; `spaceport up` makes it again")
        return
    if pool.is_paused:
        says = f"its runs wait; resume it {where} or with: {resume} work-pool resume {name}"
        yield Part(f"pool {name}", True, says, paused=True)
    else:
        state = pool.status.value.lower().replace("_", " ") if pool.status else "unknown"
        yield Part(f"pool {name}", True, f"{state}, at once: {pool.concurrency_limit or 'as its queues say'}")
    for queue in client.read_work_queues(work_pool_name=name):
        if queue.is_paused:
            says = f"its runs wait; resume it {where} or with: {resume} work-queue resume {queue.name} --pool {name}"
            yield Part(f"queue {name}/{queue.name}", True, says, paused=True)


def paused(server: LocalServer) -> list[Part]:
    """Return pools and queues that a person has paused. The server must answer."""
    with get_client(sync_client=True) as client:
        return [part for pool in POOLS for part in _pool(client, server, pool) if part.paused]


def pages_answer(server: LocalServer) -> bool:
    """Return whether our own server of the pages answers at its address, and not another program that took its port."""
    try:
        answer = httpx.get(f"{server.plan.pages_url}/", timeout=ANSWER_SECONDS, trust_env=False)
    except httpx.TransportError:
        return False
    # It lists no folders.
    return answer.status_code == httpx.codes.NOT_FOUND and answer.headers.get("Server", "").startswith(SERVER_NAME)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=ANSWER_SECONDS, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def workers_heard_of(since: Mapping[str, float]) -> set[str]:
    """Return the work pools whose worker on this machine sent a heartbeat after that time (seconds since the epoch)."""
    with get_client(sync_client=True) as client:
        return {
            pool
            for pool, moment in since.items()
            for worker in client.read_workers_for_work_pool(pool)
            if worker.name == worker_name(pool)
            and worker.last_heartbeat_time is not None
            and worker.last_heartbeat_time.timestamp() >= moment
        }
