"""The words of FAILED.json: what uploaders can act on, and nothing else of the machines that worked for them."""

import re

from prefect.client.schemas.objects import FlowRun, StateType

from deployments.listener.ready import CHOICES
from tasks.core import errors
from tasks.core.options import ReconstructOptions
from tasks.core.safe_names import printable

MOST_CHARACTERS = 600
# Their sentences speak of the photos, or of an amount; those of other errors can repeat variables, paths and files.
TOLD = (
    errors.PhotosError,
    errors.RegistrationError,
    errors.FormatError,
    errors.UnsafeNameError,
    errors.DestinationError,
    errors.TrainingDivergedError,
    errors.OutOfMemoryError,
    errors.DiskFullError,
)
_NAMES = {kind.__name__ for kind in TOLD}
# As Prefect writes an exception into a state's message.
_RAISED = re.compile(r"(?:Flow run encountered an exception:\s+)?(?P<kind>\w+): .+", re.DOTALL)
_RAISED_BEFORE = re.compile(r"Flow run encountered an exception:\s+")
_OPERATORS = [  # options; one whose name begins with another's comes first
    f"{stage}.{name}"
    for stage, choices in CHOICES.items()
    for name in sorted(set(type(getattr(ReconstructOptions(), stage)).model_fields) - choices, reverse=True)
]
_ENDS = {
    StateType.CANCELLED: "The run was cancelled.",
    StateType.CRASHED: "The run ended without a word: its process was ended, or its machine is gone.",
    StateType.FAILED: "The run failed for a reason that its log has.",
}


def reason_of(run: FlowRun, ask: str) -> str:
    """The sentence for a run that has not completed: its own where it is about the photos, else whom to ask."""
    message = (run.state.message if run.state else None) or ""
    raised = _RAISED.fullmatch(message)
    if raised and raised["kind"] in _NAMES:
        more = f" {_not_to_choose(message)}: ask {ask}." if _not_to_choose(message) else ""
        return bounded(_RAISED_BEFORE.sub("", message, count=1), MOST_CHARACTERS - len(more)) + more
    end = _ENDS.get(run.state_type or StateType.FAILED, _ENDS[StateType.FAILED])
    return bounded(f"{end} Ask {ask}, who finds it as run {run.id}.")


def bounded(sentence: str, most: int = MOST_CHARACTERS) -> str:
    """On one line, without control characters, and cut where it is longer than FAILED.json may hold."""
    text = printable(" ".join(sentence.split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _not_to_choose(message: str) -> str:
    """A word on an option that the message names and no upload may choose; empty where there is none."""
    return next((f"Uploads cannot choose {name}" for name in _OPERATORS if name in message), "")
