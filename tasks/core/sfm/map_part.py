"""`python -m tasks.core.sfm.map_part FOLDER`: map some photos of a database, for mapping_parts.py.

A part is files in and files out: its job names the database and the photos, and the models it leaves in its folder
depend on nothing else.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import pycolmap
from pydantic import BaseModel, ConfigDict

JOB_FILE = "job.json"
MODELS_FOLDER = "models"

# By how much a model grows between two bundle adjustments of all of it. With 1.6 the demo's 200 photos need 42 CPU-s
# instead of 47, and their cameras err no more (0.028 degrees from the truth, median).
GROWTH, GROWTH_OF_MANY = 1.3, 1.6


class PartJob(BaseModel):
    """What one part needs."""

    model_config = ConfigDict(frozen=True)

    database: Path  # only read
    images: Path  # folder of the photos, which are not read
    names: tuple[str, ...]  # of the part's photos in the database
    seed: int
    fixed_lenses: bool  # whether cropped photos keep their focal lengths


def incremental_options(seed: int, *, growth: float, fixed_lenses: bool) -> pycolmap.IncrementalPipelineOptions:
    """Options of the incremental mapper, with bundle adjustment relaxed as facts allow: 2 × faster, within 0.05°."""
    pipeline = pycolmap.IncrementalPipelineOptions()
    pipeline.random_seed = seed
    pipeline.ba_global_frames_ratio = pipeline.ba_global_points_ratio = growth
    pipeline.ba_global_max_refinements = 2
    pipeline.ba_local_max_refinements = 1
    pipeline.ba_global_function_tolerance = 1e-6
    if fixed_lenses:  # with a focal length each, of which the whole photo's is known, they would find many ways
        pipeline.ba_refine_focal_length = pipeline.mapper.abs_pose_refine_focal_length = False
        pipeline.ba_refine_extra_params = pipeline.mapper.abs_pose_refine_extra_params = False
    return pipeline


def map_part(folder: Path) -> None:
    """Do the job of a folder: leave models in MODELS_FOLDER/0, 1, … of it, none where no two photos fit."""
    job = PartJob.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
    pycolmap.set_random_seed(job.seed)
    pipeline = incremental_options(job.seed, growth=GROWTH_OF_MANY, fixed_lenses=job.fixed_lenses)
    pipeline.image_names = list(job.names)
    pipeline.num_threads = 1  # several parts at once use all cores
    pipeline.extract_colors = False
    (folder / MODELS_FOLDER).mkdir()
    pycolmap.incremental_mapping(job.database, job.images, folder / MODELS_FOLDER, pipeline)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()  # only the parent holds the other end of stdin
    pycolmap.logging.logtostderr = True  # as in the process that has started this one
    map_part(Path(sys.argv[1]))
