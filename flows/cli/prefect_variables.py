"""Prefect's own environment variables for a command, which runs Prefect in its process. Only this module sets them.

Prefect reads them once, during import, and creates its folder then. `temporary_settings` and profiles need Prefect to
be imported, so they come too late. The processes that a command starts inherit the variables.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

from tasks.core.errors import DestinationError
from tasks.core.paths import OWNER_ONLY_FOLDER, private_folder
from tasks.running.settings import HEARTBEAT_SECONDS, Settings

NO_PROXY = ("NO_PROXY", "no_proxy")
OWN_NAMES = ("127.0.0.1", "localhost")


def configure_prefect(settings: Settings, environment: MutableMapping[str, str] = os.environ) -> None:
    """Make Prefect run quietly inside this process. Call it before `prefect` is imported.

    `PREFECT_…` variables that the user has set are kept: with `PREFECT_API_URL` the run appears on that server instead.
    Raises DestinationError if the state folder cannot be created.
    """
    defaults = {
        "PREFECT_HOME": str(settings.home / "prefect"),
        # Prefect's temporary server would admit every user of this machine and write to `spaceport up`'s database.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # The telemetry task can log a 60-line "database is locked" traceback at start.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # A server that misses several heartbeats of a run regards it as dead.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        # The terminal belongs to our own progress display; the run's log still goes to the API.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_FLOW_RUNS_LEVEL": "CRITICAL",
    }
    for name, value in defaults.items():
        environment.setdefault(name, value)
    leave_out_proxy(environment)
    home = Path(environment["PREFECT_HOME"])
    try:
        settings.home.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        if home == settings.home / "prefect":
            private_folder(home)
        else:  # the user's own folder, whose permissions are left alone
            home.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(
            f"The state folder {home} cannot be written ({error.strerror}); name another one with SPACEPORT_HOME."
        ) from error


def leave_out_proxy(environment: MutableMapping[str, str]) -> None:
    """Exclude connections to this machine itself from a proxy that the environment names.

    Some libraries read `no_proxy`, others `NO_PROXY`, so both get the hosts of either.
    """
    named = [name.strip() for variable in NO_PROXY for name in environment.get(variable, "").split(",")]
    if "*" not in named:
        names = dict.fromkeys([*filter(None, named), *OWN_NAMES])
        environment.update(dict.fromkeys(NO_PROXY, ",".join(names)))
