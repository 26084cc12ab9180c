"""Settings of this machine and this process: the variables `SPACEPORT_…`."""

import json
import math
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import DestinationError, OptionsError
from tasks.core.local_path import local_path
from tasks.core.private_files import OWNER_ONLY_FOLDER, private_folder

DEFAULT_WORKSPACE = "spaceport-data"
DEFAULT_CACHE_GB = 20
DEFAULT_KEEP_DAYS, MOST_KEEP_DAYS = 30, 3650
STAGES = ("photos", "sfm", "train", "compress", "publish")
GpuPool = Literal["ecs-gpu", "ec2-gpu"]  # where training may run in an AWS account
GPU_POOLS: tuple[GpuPool, ...] = ("ecs-gpu", "ec2-gpu")
HEARTBEAT_SECONDS = 30  # how often a run says that it lives; the shortest that Prefect admits
NO_PROXY = ("NO_PROXY", "no_proxy")
OWN_NAMES = ("127.0.0.1", "localhost")

T = TypeVar("T", bound=str)


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
    keep_days: int | None = None  # of ended runs in Prefect's database; null: as `spaceport up` was told, or 30
    upload_limits: str = "{}"  # JSON: what uploads may ask for at most (deployments/listener/uploads.py)
    # For `python -m deployments.apply` alone; `spaceport up` has options for them.
    cpu_slots: int = 2  # stages at once in pool `cpu`
    gpu_slots: int = 1  # trainings at once
    notify: str | None = None  # URL that hears of runs that are done or have failed
    gpu_pool: GpuPool = "ecs-gpu"

    @property
    def absolute_workspace(self) -> str:
        """The workspace's name for processes with another working directory."""
        if "://" in self.workspace or self.workspace.startswith("s3-bucket/"):
            return self.workspace
        return str(local_path(self.workspace).resolve())

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> "Settings":
        """Read the settings; a variable that is missing or empty leaves the default.

        Raises OptionsError for a value without a meaning.
        """
        state = Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return cls(
            workspace=environment.get("SPACEPORT_WORKSPACE") or DEFAULT_WORKSPACE,
            home=Path(environment.get("SPACEPORT_HOME") or state / "spaceport"),
            dispatch=stages_named(environment.get("SPACEPORT_DISPATCH", ""), "SPACEPORT_DISPATCH"),
            job_variables_again=_json_by_stage(environment, "SPACEPORT_JOB_VARIABLES_AGAIN"),
            machines=_json_by_stage(environment, "SPACEPORT_MACHINES"),
            pages_url=environment.get("SPACEPORT_PAGES_URL") or None,
            cache_bytes=_cache_bytes(environment),
            hourly_cost_usd=_number(environment, "SPACEPORT_HOURLY_COST_USD", "a price in US dollars, such as 0.53"),
            metrics=_choice(environment, "SPACEPORT_METRICS", ("off", "emf")) == "emf",
            upload_limits=environment.get("SPACEPORT_UPLOAD_LIMITS") or "{}",
            keep_days=_keep_days(environment, "SPACEPORT_KEEP_DAYS"),
            cpu_slots=_slots(environment, "SPACEPORT_CPU_SLOTS", 2),
            gpu_slots=_slots(environment, "SPACEPORT_GPU_SLOTS", 1),
            notify=environment.get("SPACEPORT_NOTIFY") or None,
            gpu_pool=_choice(environment, "SPACEPORT_GPU_POOL", GPU_POOLS),
        )


def _choice(environment: Mapping[str, str], name: str, choices: tuple[T, ...]) -> T:
    """One of the choices; the first one where nothing is said. Raises OptionsError."""
    text = environment.get(name) or choices[0]
    for choice in choices:
        if choice == text:
            return choice
    raise OptionsError(f"{name} is {text!r}; set it to {' or '.join(choices)}.")


def stages_named(text: str, name: str) -> frozenset[str]:
    """The stages in a text with commas between them; `name` is what the text was given as. Raises OptionsError."""
    return _known(frozenset(stage.strip() for stage in text.split(",")) - {""}, name)


def _known(stages: frozenset[str], name: str) -> frozenset[str]:
    unknown = sorted(stages - set(STAGES))
    if unknown:
        raise OptionsError(f"{name} names {', '.join(unknown)}; the stages are {', '.join(STAGES)}.")
    return stages


def _number(environment: Mapping[str, str], name: str, what: str) -> float | None:
    """A finite number of 0 or more, None where nothing is said. Raises OptionsError."""
    text = environment.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise OptionsError(f"{name} is {text!r}; set it to {what}.")
    return number


def _cache_bytes(environment: Mapping[str, str]) -> int:
    """Gigabytes, written by a person, in bytes. Raises OptionsError."""
    size = _number(environment, "SPACEPORT_CACHE_GB", f"a number of gigabytes, such as {DEFAULT_CACHE_GB}")
    return int((DEFAULT_CACHE_GB if size is None else size) * 1e9)


def _slots(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of 1 or more. Raises OptionsError."""
    text = environment.get(name) or str(default)
    if not (text.isdecimal() and int(text) >= 1):
        raise OptionsError(f"{name} is {text!r}; set it to a whole number of 1 or more.")
    return int(text)


def _keep_days(environment: Mapping[str, str], name: str) -> int | None:
    """A number of days, None where nothing is said. Raises OptionsError."""
    text = environment.get(name)
    if not text:
        return None
    if not (text.isdecimal() and 1 <= int(text) <= MOST_KEEP_DAYS):
        raise OptionsError(f"{name} is {text!r}; set it to a whole number of days from 1 to {MOST_KEEP_DAYS}.")
    return int(text)


def _json_by_stage(environment: Mapping[str, str], name: str) -> str:
    """JSON that says something of stages: an object of objects. Raises OptionsError."""
    text = environment.get(name) or "{}"
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        raise OptionsError(f"{name} is no JSON: {error.msg} at character {error.pos + 1} of {text!r}.") from error
    if not isinstance(said, dict) or not all(isinstance(value, dict) for value in said.values()):
        raise OptionsError(f"{name} is {text!r}; set it to a JSON object with an object for each stage that it names.")
    _known(frozenset(said), name)
    return text


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
    leave_out_proxy(environment)
    home = Path(environment["PREFECT_HOME"])
    try:
        settings.home.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        if home == settings.home / "prefect":
            private_folder(home)
        else:  # a person's own, who knows best whom it is for
            home.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(
            f"The state folder {home} cannot be written ({error.strerror}); name another one with SPACEPORT_HOME."
        ) from error


def leave_out_proxy(environment: MutableMapping[str, str]) -> None:
    """Let connections to this machine itself go past a proxy that the environment names.

    Libraries read either spelling, so both get the names that either has.
    """
    named = [name.strip() for variable in NO_PROXY for name in environment.get(variable, "").split(",")]
    if "*" not in named:
        names = dict.fromkeys([*filter(None, named), *OWN_NAMES])
        environment.update(dict.fromkeys(NO_PROXY, ",".join(names)))


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
