"""What will compute a stage that a GPU may compute, which is a part of its output's name: their results differ."""

from typing import Literal

from pydantic import TypeAdapter

from tasks.core.estimate.machine import NVIDIA_DRIVER, Machine
from tasks.core.refs import RunContext
from tasks.core.render.backends import resolve_backend
from tasks.core.settings import Settings
from tasks.dispatch import runs_elsewhere

Computing = Literal["cpu", "cuda"]
OTHER: dict[Computing, Computing] = {"cpu": "cuda", "cuda": "cpu"}
MACHINES = TypeAdapter(dict[str, Machine])


def computing_backend(stage: str, asked: Literal["auto", "cpu", "cuda"], context: RunContext) -> Computing:
    """The backend that `asked` means where the stage runs.

    For a stage that runs elsewhere it is what SPACEPORT_MACHINES says of its machine, else what it would be here. The
    stage's own run knows better; see `run_stage`.
    """
    if asked != "auto":
        return asked
    if runs_elsewhere(stage, context):
        machine = MACHINES.validate_json(Settings.from_environment().machines).get(stage)
        if machine is not None:
            return "cuda" if machine.gpu else "cpu"
    if not NVIDIA_DRIVER.exists():
        return "cpu"  # known without torch, which takes a second and 200 MB
    return "cuda" if resolve_backend("auto") == "cuda" else "cpu"
