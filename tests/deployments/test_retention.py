"""Old runs are removed from Prefect's database, and only those."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.settings import Settings as PrefectSettings

from deployments.local import server as local_server
from deployments.local.access import make_secrets
from deployments.local.server import Choices, bring_up
from deployments.local.server_settings import retention
from deployments.local.state import (
    SERVER,
    LocalServer,
    process_environment,
    read_state,
    server_environment,
    write_state,
)
from deployments.plan import Plan
from flows.cli.connection import ServerOfRun
from tasks.running.settings import Settings
from tests.conftest import REPOSITORY
from tests.support.own_home import without_users_servers
from tests.support.patience import STALL_SECONDS, eventually

COMMAND = """
import os, sys
from pathlib import Path
from flows.cli.connection import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), os.environ, int(sys.argv[2])).running(print):
    print(os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"], flush=True)
    sys.stdin.read()
"""


@contextmanager
def server(home: Path, keep_days: int) -> Iterator[httpx.Client]:
    """The server of a command that runs as long as the block."""
    kept = without_users_servers()
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home), str(keep_days)],
        env={**kept, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout
    assert command.stdin
    try:
        url, secret = command.stdout.readline().split()
        user, password = secret.split(":")
        with httpx.Client(base_url=url, auth=(user, password), timeout=STALL_SECONDS) as http:
            yield http
    finally:
        command.stdin.close()
        command.wait(STALL_SECONDS)
        command.stdout.close()


def made(http: httpx.Client, path: str, **said: Any) -> str:
    answer = http.post(path, json=said)
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def found(http: httpx.Client, what: str) -> set[str]:
    """Ids of all flow runs or task runs, keys of all artifacts, messages of all logs."""
    field = {"artifacts": "key", "artifacts/latest": "key", "logs": "message"}.get(what, "id")
    answer = http.post(f"/{what}/filter", json={})
    assert answer.is_success, answer.text
    return {each[field] for each in answer.json()}


def test_ended_runs_are_forgotten_with_all_that_is_theirs_and_no_other_run(tmp_path: Path) -> None:
    """By the server of a run in a terminal, which lives too short a time for a clean-up that comes round hourly."""
    with server(tmp_path, 30) as http:
        flow = made(http, "/flows/", name="flow")
        runs = {}
        for name in ("old", "failed", "young", "Scheduled", "Running", "Paused"):
            state = {"old": "Completed", "young": "Completed", "failed": "Failed"}.get(name, name)
            runs[name] = made(http, "/flow_runs/", flow_id=flow, name=name)
            http.post(f"/flow_runs/{runs[name]}/set_state", json={"state": {"type": state.upper()}, "force": True})
            line = {"name": "x", "level": 20, "message": name, "timestamp": str(datetime.now(UTC))}
            http.post("/logs/", json=[{**line, "flow_run_id": runs[name]}]).raise_for_status()
            made(http, "/artifacts/", key=f"{name}-summary".lower(), type="markdown", data="x", flow_run_id=runs[name])
        task = made(http, "/task_runs/", flow_run_id=runs["old"], task_key="train", dynamic_key="0", name="train")
        runs["child"] = made(http, "/flow_runs/", flow_id=flow, name="child", parent_task_run_id=task)
        state = {"state": {"type": "COMPLETED"}, "force": True}
        http.post(f"/flow_runs/{runs['child']}/set_state", json=state).raise_for_status()
        assert found(http, "flow_runs") == set(runs.values())
        assert found(http, "task_runs") == {task}

    past = {name: datetime.now(UTC) - timedelta(days=29 if name == "young" else 31) for name in runs}
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as database:
        for column in ("start_time", "end_time", "expected_start_time", "created", "updated"):
            database.executemany(
                f"UPDATE flow_run SET {column} = ? WHERE name = ? AND {column} IS NOT NULL",
                [(moment.strftime("%Y-%m-%d %H:%M:%S.%f"), name) for name, moment in past.items()],
            )
        database.execute("DELETE FROM artifact WHERE key = 'failed-summary'")  # as by a clean-up that was ended early
        database.commit()

    stays = {"young", "Scheduled", "Running", "Paused"}
    keys = {f"{name}-summary".lower() for name in stays}
    with server(tmp_path, 30) as http:
        eventually(lambda: found(http, "artifacts") == keys, "end of the runs' clean-up")
        eventually(lambda: "failed-summary" not in found(http, "artifacts/latest"), "end of the other clean-up")
        assert found(http, "flow_runs") == {runs[name] for name in stays}
        assert found(http, "task_runs") == set()
        assert found(http, "logs") == stays


def test_prefect_reads_it_as_it_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in retention(2).items():
        monkeypatch.setenv(name, value)
    read = PrefectSettings().server
    assert read.services.db_vacuum.enabled_vacuum_types == {"flow_runs", "events", "orphans"}
    assert read.services.db_vacuum.retention_period == timedelta(days=2)
    assert read.events.retention_period == timedelta(days=2), "events of runs that are gone are of no use"
    assert read.services.db_vacuum.event_retention_overrides == {"prefect.flow-run.heartbeat": timedelta(days=1)}


def test_what_a_person_has_set_and_their_database_stay_as_they_are(tmp_path: Path) -> None:
    period, enabled = "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD", "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED"
    up = LocalServer(port=4200, pages_port=None, plan=Plan(workspace="/w"), keep_days=7)

    def environment(**inherited: str) -> dict[str, str]:
        return server_environment(up, process_environment(up, tmp_path, inherited, "a:b"))

    assert (environment()[period], environment()[enabled]) == ("P7D", "events,flow_runs")
    assert environment(**{period: "P1D"})[period] == "P1D"
    for name in ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_HOST"):
        assert not {period, enabled} & set(environment(**{name: "elsewhere"}))


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({}, 90),
        ({"SPACEPORT_KEEP_DAYS": "5"}, 5),
        ({"PREFECT_HOME": "their-own"}, None),
        ({"PREFECT_API_DATABASE_CONNECTION_URL": "postgresql://elsewhere"}, None),
    ],
)
def test_a_run_in_a_terminal_keeps_as_much_as_up_was_told(
    variables: dict[str, str], kept: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(workspace=str(tmp_path / "ws"))
    write_state(tmp_path, LocalServer(port=4200, pages_port=None, plan=plan, keep_days=90, up=False))
    asked = []
    monkeypatch.setattr("flows.cli.connection.EmbeddedServer", lambda home, environment, keep: asked.append(keep))
    for name in ("PREFECT_API_URL", "PREFECT_HOME", "SPACEPORT_KEEP_DAYS", "PREFECT_API_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value) if name == "PREFECT_HOME" else value)
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path))
    ServerOfRun(Settings())
    assert asked == [kept]


def test_another_choice_starts_the_server_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which reads it when it starts."""

    class Started(Exception):  # noqa: N818 - ends `bring_up` where the server would start
        pass

    def start(name: str, command: object, folder: Path, environment: dict[str, str]) -> None:
        raise Started(name, environment["PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"])

    plan = Plan(workspace="s3://bucket/prefix")
    write_state(tmp_path, LocalServer(port=4200, pages_port=None, plan=plan))
    make_secrets(tmp_path, keep=False)
    stopped: list[str] = []
    started_now = SimpleNamespace(created_at=time.time())
    monkeypatch.setattr(local_server, "find", lambda name, folder: started_now if name == SERVER else None)
    monkeypatch.setattr(local_server, "stop", lambda name, folder, patience: stopped.append(name))
    monkeypatch.setattr(local_server, "start", start)
    monkeypatch.setattr(local_server, "use_local_server", lambda *arguments: None)
    with pytest.raises(Started) as started:
        bring_up(Choices(keep_days=7), tmp_path, lambda text: None)
    assert started.value.args == (SERVER, "P7D")
    assert stopped == [SERVER]
    kept = read_state(tmp_path)
    assert kept is not None
    assert kept.keep_days == 7
