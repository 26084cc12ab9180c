"""The server of docker/compose.yaml without containers: real Postgres, real Redis, API and services apart, basic auth.

The settings are those of the compose file, with the containers' names replaced.
"""

import base64
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import yaml

from tests.conftest import REPOSITORY
from tests.support.own_home import without_users_servers
from tests.support.patience import STALL_SECONDS, eventually
from tests.support.server_process import free_port, is_up, server_process, until_answers

AUTH = "spaceport:a-password"
RUNS, WORKERS = 6, 3
FLOW = """
from prefect import flow, task

@task
def double(number: int) -> int:
    return 2 * number

@flow
def trivial(number: int) -> int:
    return sum(double(number + i) for i in range(3))
"""


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """A cluster of its own; Postgres refuses to run as root, so that it gets the account of the system's Postgres."""
    port = free_port()
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    account = None
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)

    def run(*command: str) -> None:
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
        )

    data = str(folder / "data")
    run(str(binaries / "initdb"), "-D", data, "-U", "prefect", "--auth", "trust", "--no-sync")
    options = f"-p {port} -h 127.0.0.1 -k {folder}"
    run(str(binaries / "pg_ctl"), "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        run(str(binaries / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect")
        yield port
    finally:
        run(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "stop")


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    port = free_port()
    binary = shutil.which("redis-server")
    assert binary is not None, "redis-server is missing; .ci/run installs it"
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with server_process(command, folder / "redis.log", dict(os.environ)):
        yield port


def compose_environment(service: str, postgres_port: int, redis_port: int, api_port: int) -> dict[str, str]:
    """Environment of a service in the compose file, for this machine."""
    compose = yaml.safe_load((REPOSITORY / "docker/compose.yaml").read_text(encoding="utf-8"))
    places = {
        ":${POSTGRES_PASSWORD:?see docker/env.example}@postgres:5432": f"@127.0.0.1:{postgres_port}",
        "redis://redis:6379": f"redis://127.0.0.1:{redis_port}",
        "http://server:4200": f"http://127.0.0.1:{api_port}",
        "${SPACEPORT_AUTH:?see docker/env.example}": AUTH,
        "${SPACEPORT_AUTH}": AUTH,
    }
    environment = dict(compose["services"][service]["environment"])
    for name, value in environment.items():
        for place, here in places.items():
            value = value.replace(place, here)
        environment[name] = value
    return {name: value for name, value in environment.items() if "${" not in value}


def test_many_runs_on_several_workers(tmp_path: Path) -> None:
    (tmp_path / "trivial_flow.py").write_text(FLOW, encoding="utf-8")
    logs = tmp_path / "logs"
    logs.mkdir()
    kept = without_users_servers()
    kept |= {"PREFECT_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}
    prefect = [sys.executable, "-m", "prefect"]
    with ExitStack() as stack:
        # pytest's own folders are closed to other accounts, and too long for a socket's path.
        database = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")))
        ports = (stack.enter_context(postgres(database)), stack.enter_context(redis(logs)), free_port())
        server = kept | compose_environment("server", *ports)
        client = kept | compose_environment("worker-cpu", *ports)
        api = client["PREFECT_API_URL"]
        upgraded = subprocess.run(
            [*prefect, "server", "database", "upgrade", "--yes"],
            env=server,
            capture_output=True,
            text=True,
            check=False,
        )
        assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
        start = [*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(ports[2]), "--no-services"]
        process = stack.enter_context(server_process(start, logs / "server.log", server))
        stack.enter_context(server_process([*prefect, "server", "services", "start"], logs / "services.log", server))
        until_answers(process, lambda: is_up(f"{api}/health"), logs / "server.log")

        assert httpx.post(f"{api}/flow_runs/count", json={}, timeout=STALL_SECONDS).status_code == 401
        credentials = {"Authorization": f"Basic {base64.b64encode(AUTH.encode()).decode()}"}
        with httpx.Client(base_url=api, headers=credentials, timeout=STALL_SECONDS) as http:
            deployment = deploy(http, tmp_path)
            for number in range(WORKERS):
                name = f"worker-{number}"
                command = [*prefect, "worker", "start", "--pool", "trivial", "--type", "process", "--name", name]
                stack.enter_context(server_process([*command, "--limit", "1"], logs / f"{name}.log", client))
            runs = [
                http.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": {"number": number}}).json()
                for number in range(RUNS)
            ]
            ids = {"id": {"any_": [run["id"] for run in runs]}}

            def states() -> list[str]:
                return [run["state_name"] for run in http.post("/flow_runs/filter", json={"flow_runs": ids}).json()]

            def ended() -> bool:
                names = states()
                assert not {"Failed", "Crashed", "Cancelled"} & set(names), names
                return names == ["Completed"] * RUNS

            def task_runs() -> int:
                return len(http.post("/task_runs/filter", json={"flow_runs": ids}).json())

            eventually(ended, f"end of {RUNS} runs", states)
            eventually(lambda: task_runs() == 3 * RUNS, f"{3 * RUNS} task runs in the database", task_runs)
    text = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in logs.glob("*.log")}
    for name in ("server.log", "services.log"):
        for trouble in ("database is locked", "Traceback", "| ERROR"):
            assert trouble not in text[name], text[name][-3000:]
    used = [name for name, content in text.items() if name.startswith("worker") and "Completed()" in content]
    assert len(used) == WORKERS, f"only {used} had work to do"


def deploy(http: httpx.Client, folder: Path) -> str:
    """A pool and a deployment of the trivial flow; returns the deployment's id."""
    http.post("/work_pools/", json={"name": "trivial", "type": "process"}).raise_for_status()
    flow = http.post("/flows/", json={"name": "trivial"}).json()
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    created = http.post(
        "/deployments/",
        json={
            "name": "trivial",
            "flow_id": flow["id"],
            "entrypoint": "trivial_flow.py:trivial",
            "work_pool_name": "trivial",
            "pull_steps": [step],
            "job_variables": {"command": f"{sys.executable} -m prefect.engine"},
        },
    )
    return str(created.raise_for_status().json()["id"])
