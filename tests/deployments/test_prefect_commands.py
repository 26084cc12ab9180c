"""The commands of docs/deploy.md, word for word, on a fresh server: they make what `deployments.apply` makes."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkPool
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.apply import apply_all
from deployments.plan import Plan
from tasks.core.stages import PARTS, STAGES
from tests.conftest import REPOSITORY
from tests.support.own_home import without_users_servers
from tests.support.patience import finished
from tests.support.server_process import free_port, is_up, server_process, until_answers


def documented() -> str:
    """The block that begins with the first work pool."""
    text = (REPOSITORY / "docs/deploy.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```sh\n(prefect work-pool create spaceport-cpu .*?)```", text, re.DOTALL)
    return str(block)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """That of a person who has just started a server."""
    folder = tmp_path_factory.mktemp("fresh")
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    kept = without_users_servers()
    kept |= {"PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": api, "NO_COLOR": "1", "COLUMNS": "200"}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    kept["TMPDIR"] = str(folder)
    command = [sys.executable, "-m", "deployments.local.prefect_server", "--host", "127.0.0.1", "--port", str(port)]
    with server_process(command, folder / "server.log", kept) as process:
        until_answers(process, lambda: is_up(f"{api}/health"), folder / "server.log")
        yield kept


async def pools() -> list[WorkPool]:
    async with get_client() as client:
        return await client.read_work_pools()


def test_they_make_what_apply_makes(environment: dict[str, str], tmp_path: Path) -> None:
    commands = documented().replace("automations.json", str(tmp_path / "automations.json"))
    ran = finished(["bash", "-euo", "pipefail", "-c", commands], cwd=REPOSITORY, env=environment)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    api = environment["PREFECT_API_URL"]
    named = {entry["name"] for entry in httpx.post(f"{api}/deployments/filter", json={}).json()}
    assert named == {"reconstruct", *STAGES, *PARTS}
    with temporary_settings({PREFECT_API_URL: api}):
        made = {pool.name: pool for pool in asyncio.run(pools())}
        changes = asyncio.run(apply_all(Plan(workspace=str(tmp_path))))
        applied = {pool.name: pool for pool in asyncio.run(pools())}
    rest = [change for change in changes if not change.startswith("updated deployment")]
    assert rest == ["updated work pool spaceport-cpu", "updated work pool spaceport-gpu"]
    for name, pool in applied.items():
        job = pool.base_job_template["job_configuration"]
        del job["env"]["SPACEPORT_WORKSPACE"]
        assert pool.base_job_template == {
            **made[name].base_job_template,
            "job_configuration": {**made[name].base_job_template["job_configuration"], "command": job["command"]},
        }, "all but the workspace and the command"
        assert (pool.description, pool.concurrency_limit) == (made[name].description, made[name].concurrency_limit)
    with temporary_settings({PREFECT_API_URL: api}):
        assert asyncio.run(apply_all(Plan(workspace=str(tmp_path)))) == []
