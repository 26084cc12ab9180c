"""The suite leaves the user's home, settings and servers alone."""

import os
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.support.patience import finished

# What the session's start makes before the first test: Prefect configured and loaded, and its folders looked for.
LOOK = """
import tests.conftest
import os
from pathlib import Path
from prefect.settings import get_current_settings
from tasks.running.settings import Settings
print(get_current_settings().home, Settings().home, Path.home(), os.environ.get("SPACEPORT_WORKSPACE"))
"""


def test_a_session_reads_and_writes_nothing_of_the_users(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    users = {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "SPACEPORT_WORKSPACE": "s3://the-users/own",
        "PREFECT_API_URL": "http://the-users.test/api",
        "PREFECT_HOME": str(home / "prefect"),
        "AWS_PROFILE": "the-users",
    }
    done = finished([sys.executable, "-c", LOOK], env={**os.environ, **users}, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
    *folders, workspace = done.stdout.split()
    assert len(folders) == 3
    assert not [folder for folder in folders if Path(folder).is_relative_to(home)]
    assert workspace == "None"
    assert not [folder for folder in folders if Path(folder).exists()], "what a session has made goes with it"
