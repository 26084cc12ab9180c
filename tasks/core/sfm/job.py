"""What the sfm stage asks of its worker process, and what comes back."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.core.measurements import SfmSection
from tasks.core.sfm.options import SfmOptions

LOG_FILE = "sfm.log"
WORK_FOLDER = ".work"  # database and intermediate models, removed at the end
ANSWER_FILE = "answer.json"
PLAN_FILE = "undistort.npz"
DATABASE_FILE = "database.db"  # features of all photos, and matches so far: what a later run can go on from
KEPT_DATABASE_FILE = "kept-database.db"  # the same of an earlier run that was ended


class Job(BaseModel):
    """One call of the worker. All paths are absolute."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["reconstruct", "import"]
    source: Path  # the photos stage's folder, or a user's COLMAP folder
    out: Path  # receives the scene
    options: SfmOptions
    image_size: int  # px, longest side of the undistorted images

    @property
    def work(self) -> Path:
        """Folder for everything that is not kept."""
        return self.out / WORK_FOLDER


class Answer(BaseModel):
    """A section, or an error of tasks.core.errors by name, or the words of an exception that is none of these."""

    model_config = ConfigDict(frozen=True)

    section: SfmSection | None = None
    error: str | None = None
    message: str = ""
