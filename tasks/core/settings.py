"""Where this machine keeps things. The only place that reads environment variables."""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import DestinationError, OptionsError

DEFAULT_WORKSPACE = "spaceport-data"
DEFAULT_CACHE_GB = 20
HEARTBEAT_SECONDS = 30  # how often a run says that it lives; the shortest that Prefect admits


class Settings(BaseModel):
    """What the environment decides: the variables `SPACEPORT_…`, one for each field."""

    model_config = ConfigDict(frozen=True)

    workspace: str  # root of stage outputs: a local folder, `s3://bucket/prefix` or `s3-bucket/<block>`
    home: Path  # this user's state on this machine: Prefect's database, local copies of remote outputs
    dispatch: frozenset[str] = frozenset()  # stages that run as a deployment of their own, in that one's work pool
    job_variables_again: str = "{}"  # JSON: stage -> job variables of second and later attempts at its own run
    machines: str = "{}"  # JSON: stage -> what it runs on elsewhere (tasks/core/estimate/machine.py), for estimates
    pages_url: str | None = None  # where a web server shows <workspace>/runs, for links from Prefect's UI
    cache_bytes: int = DEFAULT_CACHE_GB * 10**9  # bound of the local copies of remote outputs
    hourly_cost_usd: float | None = None  # price of this machine; null where nobody said
    metrics: bool = False  # write measurements for CloudWatch among the output

    @property
    def absolute_workspace(self) -> str:
        """The workspace's name for processes with another working directory."""
        if "://" in self.workspace or self.workspace.startswith("s3-bucket/"):
            return self.workspace
        return str(Path(self.workspace).expanduser().resolve())

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> "Settings":
        """Read the settings; both have defaults."""
        state = Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        stages = (stage.strip() for stage in environment.get("SPACEPORT_DISPATCH", "").split(","))
        cost = environment.get("SPACEPORT_HOURLY_COST_USD")
        return cls(
            workspace=environment.get("SPACEPORT_WORKSPACE", DEFAULT_WORKSPACE),
            home=Path(environment.get("SPACEPORT_HOME", state / "spaceport")),
            dispatch=frozenset(stage for stage in stages if stage),
            job_variables_again=environment.get("SPACEPORT_JOB_VARIABLES_AGAIN") or "{}",
            machines=environment.get("SPACEPORT_MACHINES") or "{}",
            pages_url=environment.get("SPACEPORT_PAGES_URL") or None,
            cache_bytes=_cache_bytes(environment.get("SPACEPORT_CACHE_GB") or str(DEFAULT_CACHE_GB)),
            hourly_cost_usd=float(cost) if cost else None,
            metrics=_metrics(environment.get("SPACEPORT_METRICS", "")),
        )


def _metrics(text: str) -> bool:
    if text not in ("", "off", "emf"):
        raise OptionsError(f"SPACEPORT_METRICS is {text!r}; give emf, or off.")
    return text == "emf"


def _cache_bytes(text: str) -> int:
    """Gigabytes, written by a person, in bytes. Raises OptionsError."""
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not 0 <= size < 1e9:
        raise OptionsError(f"SPACEPORT_CACHE_GB is {text!r}; give a number of gigabytes, such as {DEFAULT_CACHE_GB}.")
    return int(size * 1e9)


def configure_prefect(settings: Settings, environment: MutableMapping[str, str] = os.environ) -> None:
    """Make Prefect run inside this process, quietly; to be called before `prefect` is imported.

    Whoever sets a `PREFECT_…` variable keeps it: with `PREFECT_API_URL` the run appears on that server instead. Raises
    DestinationError when the state folder cannot be made.
    """
    defaults = {
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        # The default of 20 s is too short for a cold start on two cores.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        # The telemetry task can log a 60-line "database is locked" traceback at start.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # A server that hears nothing of a run for some of these takes it for dead.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        # The terminal belongs to our own progress display; the run's log still goes to the API.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_FLOW_RUNS_LEVEL": "CRITICAL",
    }
    for name, value in defaults.items():
        environment.setdefault(name, value)
    home = Path(environment["PREFECT_HOME"])
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(
            f"The state folder {home} cannot be written ({error.strerror}); name another one with SPACEPORT_HOME."
        ) from error


@contextmanager
def variable_while_loading(name: str, value: str) -> Iterator[None]:
    """A variable for a library that reads it once, while it is loaded. What a person has set stays as it is.

    Afterwards it is gone again, so that processes which are started later do not inherit it.
    """
    chosen = os.environ.get(name)
    if not chosen:
        os.environ[name] = value
    try:
        yield
    finally:
        if chosen is None:
            del os.environ[name]
        else:
            os.environ[name] = chosen
