"""Validation of a workspace without a server: runs the flow in this process, passed by the command line."""

from collections.abc import Callable
from pathlib import Path

from deployments.validation.ways import InWorkspace, Published, RunFailedError
from tasks.core.errors import SpaceportError
from tasks.core.options import ReconstructOptions
from tasks.places.workspace import open_workspace
from tasks.running.settings import settings_in_use, use_settings

Reconstruct = Callable[[str, str, ReconstructOptions, bool], object]  # photos, destination, options, fresh


class InThisProcess(InWorkspace):
    """Runs the flow as `spaceport run` does. `start` returns only when the run has ended."""

    def __init__(self, workspace: str, capture: str, reconstruct: Reconstruct) -> None:
        use_settings(settings_in_use().model_copy(update={"workspace": workspace}))  # the flow reads it from there
        super().__init__(open_workspace(workspace), capture)
        self.describes = f"flow in this process, workspace {workspace}"
        self._reconstruct = reconstruct
        self._error: str | None = None

    def start(self, photos: Path, options: ReconstructOptions) -> None:
        """As in Way."""
        self.bring(photos)
        try:
            self._reconstruct(self.photos, self.destination, options, True)
        except SpaceportError as error:
            self._error = str(error)

    def ended(self) -> Published | None:
        """As in Way."""
        if self._error is not None:
            raise RunFailedError(self._error)
        return self.published()

    def waits_for(self) -> str:
        """As in Way."""
        return "the flow"

    def stop(self) -> bool:
        """As in Way."""
        return True
