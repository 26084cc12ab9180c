"""The backend, CPU or CUDA, that will compute a stage. It is part of the output's name, since their results differ."""

from typing import Literal

from tasks.core.estimate.machine import has_usable_gpu
from tasks.core.refs import RunContext
from tasks.running.dispatch import runs_elsewhere
from tasks.running.settings import settings_in_use

Computing = Literal["cpu", "cuda"]
OTHER: dict[Computing, Computing] = {"cpu": "cuda", "cuda": "cpu"}


def computing_backend(stage: str, asked: Literal["auto", "cpu", "cuda"], context: RunContext) -> Computing:
    """The backend that `asked` means where the stage runs.

    For a stage that runs elsewhere it is what SPACEPORT_MACHINES says of its machine, else what it would be here. That
    may be wrong: `run_stage` also finds what the other backend has made there. Raises OptionsError.
    """
    if asked != "auto":
        return asked
    if runs_elsewhere(stage, context):
        machine = settings_in_use().machines.get(stage)
        if machine is not None:
            return "cuda" if machine.gpu else "cpu"
    return "cuda" if has_usable_gpu() else "cpu"
