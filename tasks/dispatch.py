"""A stage as a run of its own deployment, in whatever work pool that deployment names."""

from tasks.core.refs import RunContext
from tasks.core.settings import Settings


def runs_elsewhere(stage: str, context: RunContext) -> bool:
    """Whether the stage is to be computed by a run of its own deployment."""
    return not context.dispatched and stage in Settings.from_environment().dispatch


def run_elsewhere(stage: str, context: RunContext) -> None:
    """Run `<stage>/<stage>` with the current task's parameters and wait for its end."""
    raise NotImplementedError
