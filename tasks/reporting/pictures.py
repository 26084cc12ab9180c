"""Pictures of a run, where people look at it: in the run's folder, with a link that a browser opens."""

from tasks.core.refs import RunContext
from tasks.places.workspace import open_workspace
from tasks.reporting.artifacts import Shown

PREVIEW_PICTURE = "pictures/preview.jpg"


def show_picture(name: str, content: bytes, description: str, context: RunContext) -> Shown | None:
    """Put a picture into the run's folder and give it as an artifact; None where nothing serves the folder.

    A browser keeps what it has loaded from an address, so a new picture needs a new name. Raises StorageError.
    """
    store = open_workspace(context.workspace)
    store.write_run_file(context.run, name, content)
    url = store.run_file_url(context.run, name)
    return None if url is None else Shown("image", url, description)
