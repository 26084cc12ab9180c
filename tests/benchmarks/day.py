"""A day of many runs in the database of one Prefect server: `make bench-day`.

A run of a small flight goes through `spaceport up` once, with every stage in a run of its own, while its server writes
down each request. All that is in the database because of it is then copied, with ids of its own, for so many runs. At
the end everything is made older than the server keeps it, and the server starts again.

The database is SQLite.
"""

import argparse
import os
import re
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from deployments.local import processes
from deployments.local import server as local_server
from deployments.local.prefect_database import NAME, make_ready
from deployments.local.server_settings import EVENTS_DAYS, retention
from flows.cli.prefect_variables import configure_prefect
from tasks.running.settings import DEFAULT_KEEP_DAYS, Settings
from tests.benchmarks.tape import Entry, read_tape
from tests.support.own_home import without_users_servers

REPOSITORY = Path(__file__).parents[2]
IDLE_SECONDS = 20.0
LAST_EVENTS_SECONDS = 8.0  # which the server writes in batches
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TABLES = {
    "runs": ("flow_run", "task_run", "flow_run_state", "task_run_state", "flow_run_input"),
    "logs": ("log",),
    "artifacts": ("artifact", "artifact_collection"),
    "events": ("events", "event_resources"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--train-seconds", type=float, default=60, help="of the run that is recorded (default 60)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        before = record(Path(folder), home, arguments.train_seconds)
        pass_day(home / "prefect", before, arguments.runs)


def record(root: Path, home: Path, train_seconds: float) -> set[str]:
    """Do one run and print what its server was asked. Returns the ids of what was there before it."""
    workspace, tape, database = root / "workspace", root / "tape", home / "prefect" / NAME
    os.environ["SPACEPORT_HOME"] = str(home)
    configure_prefect(Settings())
    start = processes.start

    def start_taped(name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Any:
        command = [word.replace("deployments.local.prefect_server", "tests.benchmarks.tape") for word in command]
        return start(name, command, folder, {**environment, "SPACEPORT_TAPE": str(tape), "PYTHONPATH": str(REPOSITORY)})

    try:
        with patch.object(local_server, "start", start_taped):
            local_server.bring_up(local_server.Choices(workspace=str(workspace), port=0), home, lambda text: None)
        from tasks.core.demo.flight import fly
        from tasks.core.demo.flight_plan import DemoOptions
        from tasks.core.progress import ignore_progress
        from tests.support.local_server import Served

        fly(root / "flight", DemoOptions(photos=14, width=640, height=480), ignore_progress)
        before = ids_in(database)
        idle_from = time.time()
        time.sleep(IDLE_SECONDS)
        began = time.time()
        train = {"steps": 100_000, "max_gaussians": 5000, "max_image_size": 160, "time_budget_seconds": train_seconds}
        parameters = {"photos": str(root / "flight"), "options": {"preset": "draft", "train": train}}
        run = Served(home, workspace).start(parameters)
        until(lambda: end_of(database, str(run.id)) is not None)
        ended = time.time()
        assert end_of(database, str(run.id)) == "COMPLETED"
        time.sleep(LAST_EVENTS_SECONDS)
    finally:
        local_server.take_down(home, lambda text: None, lambda client: None, now=True)
    entries = read_tape(tape)
    idle = len([entry for entry in entries if idle_from <= entry.at < began]) / IDLE_SECONDS
    tell([entry for entry in entries if began <= entry.at <= ended], idle, ended - began)
    return before


def tell(entries: list[Entry], idle: float, seconds: float) -> None:
    """Print what the server was asked while the run lasted."""
    kinds = Counter(f"{entry.method} {UUID.sub('…', entry.path)}" for entry in entries)
    sent, answered = sum(entry.sent_bytes for entry in entries), sum(entry.answer_bytes for entry in entries)
    messages = len([entry for entry in entries if entry.method == "WS"])
    print(f"a run of {seconds:.0f} s: {len(entries) - messages} requests and {messages} messages of WebSockets,")
    print(f"{sent / 1000:.0f} kB sent, {answered / 1000:.0f} kB answered; about {idle * seconds:.0f} of them are the")
    print(f"workers', which ask {idle:.1f} times a second when idle")
    for kind, number in kinds.most_common(10):
        print(f"  {number:5}  {kind}", flush=True)


def pass_day(prefect_home: Path, before: set[str], runs: int) -> None:
    """Fill the database with so many runs, and let the server clean up when they are old."""
    database = prefect_home / NAME
    one = sizes(database)
    multiply(database, before, runs - 1)
    full = sizes(database)
    grown = {kind: (full[kind] - one[kind]) / (runs - 1) for kind in TABLES}
    print("database: " + ", ".join(f"{kind} {size / 1000:.0f} kB" for kind, size in grown.items()), end="")
    print(f" a run; {sum(grown.values()) * 1000 / 1e6:.0f} MB for 1,000")
    events = grown.pop("events") * 1000
    rest = sum(grown.values()) * 1000
    kept = rest * DEFAULT_KEEP_DAYS + events * EVENTS_DAYS
    print(f"1,000 runs a day: {kept / 1e9:.1f} GB when the oldest leave; with Prefect's own settings")
    print(f"{7 * events / 1e9:.1f} GB of events, and {30 * rest / 1e9:.1f} GB more each month")
    make_older(database, timedelta(days=DEFAULT_KEEP_DAYS + 1))
    before_bytes, start = file_bytes(database), time.monotonic()
    with serving(prefect_home):
        until(lambda: count(database, "flow_run") == 0 and count(database, "events") < runs)
        took = time.monotonic() - start
        time.sleep(LAST_EVENTS_SECONDS)
    left = sum(sizes(database).values())
    print(f"clean-up of {runs} runs: {took:.0f} s, the server's start included; {left / 1e6:.1f} MB of content left")
    make_ready(prefect_home)
    print(f"file: {before_bytes / 1e6:.0f} MB before, {file_bytes(database) / 1e6:.1f} MB after the next start")


def multiply(database: Path, before: set[str], times: int) -> None:
    """Copy all that a run has added, with new ids."""
    with closing(sqlite3.connect(database)) as connection:  # without foreign keys: rows refer to one another
        rows = {table: _added(connection, table, before) for tables in TABLES.values() for table in tables}
        for _ in range(times):
            ids: dict[str, str] = {}

            def renamed(found: re.Match[str], ids: dict[str, str] = ids) -> str:
                old = found.group()
                return old if old in before else ids.setdefault(old, str(uuid4()))

            for table, found in rows.items():
                copies = [
                    [UUID.sub(renamed, value) if isinstance(value, str) else value for value in row] for row in found
                ]
                marks = ",".join("?" * len(copies[0])) if copies else ""
                if copies:  # of an artifact's name there is one collection
                    connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", copies)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _added(connection: sqlite3.Connection, table: str, before: set[str]) -> list[tuple[Any, ...]]:
    """The rows whose id is not among those."""
    columns = connection.execute(f"PRAGMA table_info({table})")
    place = next(int(column[0]) for column in columns if column[1] == "id")
    return [row for row in connection.execute(f"SELECT * FROM {table}") if str(row[place]) not in before]


@contextmanager
def serving(prefect_home: Path) -> Iterator[None]:
    """The server of that home, without workers and without a login."""
    from tests.support.server_process import free_port, is_up, server_process, until_answers

    port, log = free_port(), prefect_home.parent / "server.log"
    kept = without_users_servers()
    ours = {"PREFECT_HOME": str(prefect_home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "deployments.local.prefect_server", "--port", str(port)]
    with server_process(command, log, {**kept, **ours, **retention(DEFAULT_KEEP_DAYS)}) as process:
        until_answers(process, lambda: is_up(f"http://127.0.0.1:{port}/api/health"), log)
        yield


def make_older(database: Path, by: timedelta) -> None:
    """Let everything in it have happened earlier."""
    moment = (datetime.now(UTC) - by).strftime("%Y-%m-%d %H:%M:%S.%f")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE flow_run SET end_time = ? WHERE end_time IS NOT NULL", [moment])
        for table in TABLES["events"]:
            connection.execute(f"UPDATE {table} SET occurred = ?", [moment])
        connection.commit()


def until(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.5)


def ids_in(database: Path) -> set[str]:
    """The ids of everything in it."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found: set[str] = set()
        for table in tables:
            if "id" in {column[1] for column in connection.execute(f"PRAGMA table_info({table})")}:
                found |= {str(row[0]) for row in connection.execute(f"SELECT id FROM {table}")}
        return found


def end_of(database: Path, run: str) -> str | None:
    """The state of a run that has ended, without a request to the server."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        found = connection.execute("SELECT state_type FROM flow_run WHERE id = ? AND end_time IS NOT NULL", [run])
        return next((str(state) for (state,) in found), None)


def count(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def sizes(database: Path) -> dict[str, int]:
    """Bytes of content, indexes included, by kind."""
    kinds = {table: kind for kind, tables in TABLES.items() for table in tables}
    totals = dict.fromkeys([*TABLES, "other"], 0)
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_master USING (name) GROUP BY tbl_name"
        )
        for table, size in found:
            totals[kinds.get(table, "other")] += size
    return totals


def file_bytes(database: Path) -> int:
    """Of the database and its log."""
    return sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*"))


if __name__ == "__main__":
    main()
