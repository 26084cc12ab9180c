"""Log lines of a process whose worker is gone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.patience import STALL_SECONDS

SCRIPT = """
import sys
from pathlib import Path
from prefect.logging import get_logger
from prefect.logging.configuration import setup_logging
from tasks.reporting.run_log import outlive_reader
setup_logging()
if sys.argv[2] == "outlives":
    outlive_reader()
logger = get_logger()
logger.warning("a line that is read")
sys.stdin.readline()
for _ in range(3):
    logger.warning("a line that is not")
Path(sys.argv[1]).write_text("done")
"""


@pytest.mark.parametrize("how", ["outlives", "ends with it"])
def test_a_run_goes_on_when_nothing_reads_its_lines_any_more(how: str, tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SCRIPT, tmp_path / "done", how]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with subprocess.Popen(command, cwd=REPOSITORY, env=own, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdin
        assert run.stdout
        assert run.stderr
        assert "a line that is read" in run.stderr.readline()
        run.stdout.close()
        run.stderr.close()
        run.stdin.write("\n")
        run.stdin.close()
        run.wait(STALL_SECONDS)
    assert (tmp_path / "done").exists() == (how == "outlives")
