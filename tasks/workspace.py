"""From the workspace's name to the workspace."""

from tasks.core.errors import DestinationError
from tasks.core.settings import Settings
from tasks.core.storage import LocalWorkspace, Workspace


def open_workspace(name: str) -> Workspace:
    """The workspace of that name. Raises DestinationError when there is none."""
    if "://" in name:
        raise DestinationError(
            f"The workspace {name} is not a local folder; this version keeps stage outputs on local disk only."
        )
    return LocalWorkspace(name, Settings.from_environment().pages_url)
