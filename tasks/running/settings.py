"""Settings of this machine and this process: the variables `SPACEPORT_…`. docs/settings.md lists them.

A process reads them once, at its start, with `Settings()`: in a command, in the first line of a flow, in a service's
main. Code that works for a run calls `settings_in_use()`; nothing else here or below reads the environment.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, JsonValue, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tasks.core.errors import OptionsError
from tasks.core.estimate.machine import Machine, machines_by_stage
from tasks.core.paths import local_path
from tasks.core.stages import STAGES

PREFIX = "SPACEPORT_"
DEFAULT_WORKSPACE = "spaceport-data"
DEFAULT_CACHE_GB = 20
DEFAULT_KEEP_DAYS, MOST_KEEP_DAYS = 30, 3650
HEARTBEAT_SECONDS = 30  # between two heartbeats of a run; the shortest interval that Prefect admits

S = TypeVar("S", bound="Settings")


def variable(field: str) -> str:
    """Return the environment variable of a field of Settings."""
    return f"{PREFIX}{field.upper()}"


def from_text(read: Callable[[str, str], object]) -> BeforeValidator:
    """Return a validator for a variable's text: `read(text, name of the variable)`. Other values pass unchanged."""

    def validate(value: object, info: ValidationInfo) -> object:
        return read(value, variable(str(info.field_name))) if isinstance(value, str) else value

    return BeforeValidator(validate)


def one_of(*choices: str) -> Callable[[str, str], str]:
    """Return a reader for one of the choices, which raises OptionsError."""

    def read(text: str, name: str) -> str:
        if text not in choices:
            raise OptionsError(f"{name} is {text!r}; set it to {' or '.join(choices)}.")
        return text

    return read


def whole_number(text: str, name: str) -> int:
    """Read a whole number of 1 or more. Raises OptionsError."""
    if not (text.isdecimal() and int(text) >= 1):
        raise OptionsError(f"{name} is {text!r}; set it to a whole number of 1 or more.")
    return int(text)


def stages_named(text: str, name: str) -> frozenset[str]:
    """Read a comma-separated list of stages; `name` is the variable or option of the text. Raises OptionsError."""
    return _known(frozenset(stage.strip() for stage in text.split(",")) - {""}, name)


def _known(stages: frozenset[str], name: str) -> frozenset[str]:
    unknown = sorted(stages - set(STAGES))
    if unknown:
        raise OptionsError(f"{name} names {', '.join(unknown)}; the stages are {', '.join(STAGES)}.")
    return stages


def _number(what: str) -> Callable[[str, str], float]:
    """Return a reader for a finite number of 0 or more, which raises OptionsError."""

    def read(text: str, name: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise OptionsError(f"{name} is {text!r}; set it to {what}.")
        return number

    return read


def _days(text: str, name: str) -> int:
    """Read a number of days. Raises OptionsError."""
    if not (text.isdecimal() and 1 <= int(text) <= MOST_KEEP_DAYS):
        raise OptionsError(f"{name} is {text!r}; set it to a whole number of days from 1 to {MOST_KEEP_DAYS}.")
    return int(text)


def _by_stage(text: str, name: str) -> dict[str, Any]:
    """Read a JSON object that has an object for each stage. Raises OptionsError."""
    try:
        said = json.loads(text)
    except json.JSONDecodeError as error:
        raise OptionsError(f"{name} is no JSON: {error.msg} at character {error.pos + 1} of {text!r}.") from error
    if not isinstance(said, dict) or not all(isinstance(value, dict) for value in said.values()):
        raise OptionsError(f"{name} is {text!r}; set it to a JSON object with an object for each stage that it names.")
    _known(frozenset(said), name)
    return said


def _machines(text: str, name: str) -> dict[str, Machine]:
    _by_stage(text, name)
    return machines_by_stage(text)


def _metrics(text: str, name: str) -> bool:
    return one_of("off", "emf")(text, name) == "emf"


def _home() -> Path:
    """The folder for a user's state on this machine, by the platform's convention."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "spaceport"


class Settings(BaseSettings):
    """Settings from the environment: the variables `SPACEPORT_…`, one for each field.

    A missing or empty variable means the default. For an invalid value, `Settings()` raises OptionsError with the
    variable's name.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    workspace: str = Field(
        DEFAULT_WORKSPACE,
        description="Root of stage outputs: a local folder, `s3://bucket/prefix` or `s3-bucket/<block>`.",
    )
    home: Path = Field(
        default_factory=_home,
        description="This user's state on this machine: Prefect's database, local copies of remote outputs.",
    )
    dispatch: Annotated[frozenset[str], NoDecode, from_text(stages_named)] = Field(
        frozenset(),
        description="Stages, with commas between them, that run as a deployment of their own, in that one's work pool.",
    )
    job_variables_again: Annotated[dict[str, dict[str, JsonValue]], NoDecode, from_text(_by_stage)] = Field(
        {}, description="JSON: for a stage, the job variables of the second and later attempts at its own run."
    )
    machines: Annotated[dict[str, Machine], NoDecode, from_text(_machines)] = Field(
        {}, description="JSON: for a stage that runs elsewhere, the machine it runs on, for estimates."
    )
    pages_url: str | None = Field(
        None, description="Where a web server shows the workspace's folder `runs`, for links from Prefect's UI."
    )
    cache_gb: Annotated[float, from_text(_number(f"a number of gigabytes, such as {DEFAULT_CACHE_GB}"))] = Field(
        DEFAULT_CACHE_GB, description="Bound of the local copies of remote outputs, in gigabytes."
    )
    hourly_cost_usd: Annotated[float | None, from_text(_number("a price in US dollars, such as 0.53"))] = Field(
        None, description="Price of an hour of this machine, in US dollars; without it a run has no price."
    )
    metrics: Annotated[bool, from_text(_metrics)] = Field(
        False, description="`emf` writes measurements for CloudWatch among the output, `off` writes none."
    )
    keep_days: Annotated[int | None, from_text(_days)] = Field(
        None,
        description=f"Days for which Prefect's database keeps runs that have ended, at most {MOST_KEEP_DAYS}; without "
        f"it, those of `spaceport up`, or {DEFAULT_KEEP_DAYS}.",
    )

    @property
    def cache_bytes(self) -> int:
        """Bound of the local copies of remote outputs."""
        return int(self.cache_gb * 1e9)

    @property
    def absolute_workspace(self) -> str:
        """The workspace's name for processes with another working directory."""
        return absolute_workspace(self.workspace)


def absolute_workspace(name: str) -> str:
    """A workspace's name for processes with another working directory."""
    if "://" in name or name.startswith("s3-bucket/"):
        return name
    return str(local_path(name).resolve())


class ProcessSettings:
    """The settings of one process. All of its threads share them, as they share the environment."""

    def __init__(self) -> None:
        self.of_command: Settings | None = None
        self._of_run: Settings | None = None

    def read_for_run(self) -> Settings:
        """See `read_settings_of_run`."""
        self._of_run = self.of_command or Settings()
        return self._of_run

    def in_use(self) -> Settings:
        """See `settings_in_use`."""
        found = self.of_command or self._of_run
        if found is None:
            raise RuntimeError("the settings of this process were not read where it begins")
        return found


PROCESS = ProcessSettings()


def use_settings(settings: S) -> S:
    """Make these the settings of this process from now on; for a command or a service that has read them."""
    PROCESS.of_command = settings
    return settings


def read_settings_of_run() -> Settings:
    """Read the settings, in the first line of every flow. A command that runs the flow has already set them.

    Each machine that works for a run reads its own settings, because prices, folders and limits differ by machine.
    Raises OptionsError for an invalid value.
    """
    return PROCESS.read_for_run()


def settings_in_use() -> Settings:
    """Return the settings of this process, which its command or its flow has read."""
    return PROCESS.in_use()
