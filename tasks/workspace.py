"""From the workspace's name to the workspace."""

from tasks.core.storage import Workspace


def open_workspace(name: str) -> Workspace:
    """The workspace of that name. Raises DestinationError when there is none."""
    return Workspace(name)
