"""What the sfm stage asks of its worker processes, and what comes back."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from tasks.core.measurements import SfmSection
from tasks.core.sfm.options import SfmOptions

LOG_FILE = "sfm.log"
CAMERAS_MODEL = "sparse/0"  # of found cameras, in COLMAP's format; the cameras are those of the photos, with distortion
WORK_FOLDER = ".work"  # database and intermediate models, removed at the end
ANSWER_FILE = "answer.json"
PLAN_FILE = "undistort.npz"
DATABASE_FILE = "database.db"  # features of all photos, and matches so far: what a later run can go on from
KEPT_DATABASE_FILE = "kept-database.db"  # the same of an earlier run that was ended


class Job(BaseModel):
    """One call of a worker. All paths are absolute."""

    model_config = ConfigDict(frozen=True)

    program: ClassVar[str]  # the module that does the job: `python -m <program> job.json`

    source: Path  # the photos stage's folder, or a user's COLMAP folder
    out: Path  # receives the result

    @property
    def work(self) -> Path:
        """Folder for everything that is not kept."""
        return self.out / WORK_FOLDER


class CamerasJob(Job):
    """Find the cameras of a photo set."""

    program: ClassVar[str] = "tasks.core.sfm.pipeline"

    options: SfmOptions


class SceneJob(Job):
    """Make a scene of found cameras."""

    program: ClassVar[str] = "tasks.core.sfm.scene_writer"

    cameras: Path  # what a CamerasJob has made of `source`
    image_size: int  # px, longest side of the undistorted images


class ImportJob(Job):
    """Make a scene of a user's own COLMAP model."""

    program: ClassVar[str] = "tasks.core.sfm.importer"

    image_size: int  # px, longest side of the undistorted images


class Answer(BaseModel):
    """What was measured, or an error of tasks.core.errors by name, or the words of an exception that is none of these.

    Where nothing is measured, an answer without words says that the job is done.
    """

    model_config = ConfigDict(frozen=True)

    section: SfmSection | None = None
    error: str | None = None
    message: str = ""
