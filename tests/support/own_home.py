"""A home of the tests' own: they neither read the user's files and settings nor leave anything among them."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Where programs keep what is a user's; under HOME unless these say otherwise.
FOLDERS = {
    "XDG_STATE_HOME": ".local/state",
    "XDG_DATA_HOME": ".local/share",
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
}
# A server, a workspace or an account that the user works with is not for tests.
FOREIGN = ("SPACEPORT_", "PREFECT_", "AWS_")
FOR_TESTS = ("SPACEPORT_REQUIRE_DATA", "SPACEPORT_EMULATOR")


def leave_the_users_home() -> Path:
    """Give this process and all that it starts an empty home, which is removed at its end.

    To be called before anything is imported that looks for its settings at once, as Prefect does.
    """
    home = Path(tempfile.mkdtemp(prefix="spaceport-tests-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith(FOREIGN) and name not in FOR_TESTS]:
        del os.environ[name]
    os.environ["HOME"] = str(home)
    for name, folder in FOLDERS.items():
        (home / folder).mkdir(parents=True)
        os.environ[name] = str(home / folder)
    return home


def without_users_servers() -> dict[str, str]:
    """The environment for a process that shall find no Prefect server, workspace or setting of this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SPACEPORT_"))}
