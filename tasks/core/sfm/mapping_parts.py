"""Map many photos in parts, each in a process of its own and as many at once as fit, and make one model of them.

Memory and time of a part do not depend on how many photos there are in all. A part that is finished is left in a file
of its own, from which a later run can take it.
"""

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from tasks.core.sfm import map_part
from tasks.core.sfm.assembly import assemble
from tasks.core.sfm.division import Part, divide
from tasks.core.sfm.features import FeatureDatabase
from tasks.core.sfm.gps_adjustment import adjust_to_gps
from tasks.core.sfm.map_part import JOB_FILE, MODELS_FOLDER, PartJob
from tasks.core.sfm.merging import Posed, merge
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.view_graph import ViewGraph, read_view_graph
from tasks.core.sfm.worker import KEPT_PARTS_FOLDER, PART_ENDING, how_it_ended

logger = logging.getLogger(__name__)

WHOLE_AT_MOST = 400  # photos that are mapped in one process, which is as cheap up to there
LARGEST_PART = 250  # photos of its own; its ring adds a tenth to a quarter
BYTES_PER_PHOTO = 4_000_000  # of a part's mapper with 8,192 features a photo; 1.3 MB with 900, measured
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class PartsMapped:
    """One model of all parts that fit together, and a phrase for each that does not."""

    model: pycolmap.Reconstruction | None
    parts: int
    problems: tuple[str, ...]


def map_in_parts(database: FeatureDatabase, folder: Path, work: Path, options: SfmOptions) -> PartsMapped:
    """Divide the photos by what they share, map the parts, and merge and adjust them, with GPS where photos have it.

    `folder` receives everything that is not kept. Files of finished parts are left in `work`, and those of an earlier
    run are taken from its KEPT_PARTS_FOLDER.
    """
    graph = read_view_graph(database.path, database.names)
    parts = divide(graph, LARGEST_PART)
    logger.info("phase mapping %d", sum(len(part.photos) for part in parts))
    logger.info("%d parts of at most %d photos", len(parts), max((len(part.photos) for part in parts), default=0))
    problems = []
    models, own = [], []
    for part, found in zip(parts, _mapped(parts, graph, database, folder, work, options.random_seed), strict=True):
        if isinstance(found, str):
            problems.append(found)
            continue
        if not found:
            problems.append(f"a part of {len(part.own)} photos has no two that fit")
        for model in found:
            models.append(model)
            own.append(frozenset(database.names[i] for i in part.own))
    if not models:
        return PartsMapped(None, len(parts), tuple(problems))
    merged = merge([_posed(model) for model in models], own)
    problems.extend(merged.left_out)
    taken = [models[number] for number in merged.taken]
    model = assemble(database.path, merged, taken, options.random_seed, fixed_lenses=database.has_crops)
    adjust_to_gps(model, database.gps_by_name(), options.random_seed)
    model.extract_colors_for_all_images(database.images)
    return PartsMapped(model, len(parts), tuple(problems))


def _posed(model: pycolmap.Reconstruction) -> Posed:
    images = [model.image(i) for i in model.reg_image_ids()]
    rotations = np.stack([image.cam_from_world().rotation.matrix() for image in images])
    return Posed(
        tuple(image.name for image in images), rotations, np.stack([image.projection_center() for image in images])
    )


def _mapped(
    parts: Sequence[Part], graph: ViewGraph, database: FeatureDatabase, folder: Path, work: Path, seed: int
) -> list[list[pycolmap.Reconstruction] | str]:
    """The models of each part, or how its process failed."""
    folders = [folder / f"part-{number}" for number in range(len(parts))]
    for part, place in zip(parts, folders, strict=True):
        job = PartJob(
            database=database.path,
            images=database.images,
            names=tuple(database.names[i] for i in part.photos),
            seed=seed,
            fixed_lenses=database.has_crops,
        )
        place.mkdir(parents=True)
        (place / JOB_FILE).write_text(job.model_dump_json(), encoding="utf-8")
    files = [f"{_digest(part, graph)}{PART_ENDING}" for part in parts]
    kept = work / KEPT_PARTS_FOLDER
    waiting = [i for i, place in enumerate(folders) if not _take(kept / files[i], place / MODELS_FOLDER)]
    if len(waiting) < len(parts):
        logger.info("%d of %d parts kept from an earlier run", len(parts) - len(waiting), len(parts))
    failed: dict[int, str] = {}
    at_once = database.fitting(BYTES_PER_PHOTO * LARGEST_PART)
    for i, returncode in _run([(i, folders[i]) for i in waiting], at_once):
        if returncode:
            failed[i] = f"the process that mapped a part of {len(parts[i].own)} photos {how_it_ended(returncode)}"
            logger.warning("%s", failed[i])
        else:
            _keep(folders[i] / MODELS_FOLDER, work / files[i])
    found = [sorted((place / MODELS_FOLDER).glob("*/images.bin")) for place in folders]
    return [
        failed[i] if i in failed else [pycolmap.Reconstruction(file.parent) for file in files_of_part]
        for i, files_of_part in enumerate(found)
    ]


def _run(jobs: Sequence[tuple[int, Path]], at_once: int) -> Iterator[tuple[int, int]]:
    """Run a process for each job, some at once; yields number and exit status of each as it ends."""
    waiting = list(jobs)
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, folder = waiting.pop(0)
                command = [sys.executable, "-m", map_part.__name__, str(folder)]
                running[number] = subprocess.Popen(command, stdin=subprocess.PIPE)
            for number, process in list(running.items()):
                if process.poll() is not None:
                    running.pop(number).communicate()
                    yield number, process.returncode
            time.sleep(POLL_SECONDS)
    finally:
        for process in running.values():
            process.kill()
            process.communicate()


def _digest(part: Part, graph: ViewGraph) -> str:
    """A name for what a part is made of: the same photos with the same matches."""
    photos = set(part.photos)
    shared = [(a, b, count) for (a, b), count in graph.shared.items() if a in photos and b in photos]
    return hashlib.sha256(json.dumps([part.photos, shared]).encode()).hexdigest()[:16]


def _keep(models: Path, file: Path) -> None:
    """Pack a part's models into a file, which appears whole. A disk without room for it is a warning."""
    partial = file.with_suffix(".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed:
            for path in sorted(models.rglob("*.bin")):
                packed.write(path, path.relative_to(models).as_posix())
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        logger.warning("a part's cameras could not be kept for a later run (%s)", error)


def _take(file: Path, models: Path) -> bool:
    """Unpack a part that an earlier run has mapped, if it is there and whole."""
    if not file.is_file():
        return False
    try:
        with zipfile.ZipFile(file) as packed:
            if (damaged := packed.testzip()) is not None:
                raise zipfile.BadZipFile(damaged)
            packed.extractall(models)
    except (zipfile.BadZipFile, OSError) as error:
        shutil.rmtree(models, ignore_errors=True)
        logger.warning("a part kept from an earlier run is mapped anew (%s)", error)
        return False
    return True
