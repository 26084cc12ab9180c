"""`spaceport validate` in an account: from its own upload to the published page, and everything removed again."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.emulator.account import Emulated
from tests.emulator.captures import Landed
from tests.emulator.listener import listening
from tests.support.local_server import Served
from tests.support.patience import finished


@contextmanager
def worker(environment: dict[str, str], home: Path) -> Iterator[None]:
    """One more for pool `spaceport-gpu`: tests of spot instances take the server's own away."""
    folders = {"SPACEPORT_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "spaceport-gpu", "--type", "process"]
    process = subprocess.Popen(command, env={**environment, **folders}, cwd=REPOSITORY)
    try:
        yield
    finally:
        process.kill()  # nothing is left to end; a shell's background job ignores SIGINT, by which it ends itself
        process.wait()


def test_a_validation_goes_the_whole_way(emulated: Emulated, server: Served, landed: Landed, tmp_path: Path) -> None:
    assert landed.ends, "so that there are other people's objects, which a validation has to leave alone"

    def objects() -> list[str]:
        there = emulated.infrastructure
        return [key for bucket in (there.uploads_bucket, there.results_bucket) for key in emulated.keys(bucket, "")]

    before = objects()
    with listening(emulated, server) as environment, worker(environment, tmp_path / "worker"):
        command = [sys.executable, "-m", "flows.cli", "validate", "--timeout", "3600"]  # its own limit, not the test's
        environment |= {"SPACEPORT_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
        ended = finished(command, env=environment, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stdout + ended.stderr + server.log("worker-cpu")[-3000:]
    for check in ("run ", "page ", "report page", "stages", "quality", "splat"):
        assert f"ok   {check}" in ended.stdout, ended.stdout
    assert objects() == before
