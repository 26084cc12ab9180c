"""Cameras of the real photo sets, ours beside pycolmap's defaults: `make bench-sfm`, or with options
`python -m tests.benchmarks.sfm --runs 3 --peer-runs 1 --sets fox`.

Each run is a process of its own, and they take turns. CPU seconds are user + system of the process and its children,
photo decoding included on both sides, which a busy machine changes little; ours also include checking the photos and
undistorting them, which the peer does not do. Peak memory is the greatest of one process. The fox set brings poses that
another COLMAP solved (transforms.json): agreement with them is agreement of two solutions, not error.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.core.measurements import SfmSection
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.options import SfmOptions
from tests.benchmarks.ground_plane import TOLERANCE_M, find_ground
from tests.benchmarks.pose_agreement import Agreement, agreement
from tests.benchmarks.sfm_poses import given_poses, our_poses, peer_poses
from tests.core.sfm.whole_stage import reconstruct

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared/data"
SETS = {"sceaux_castle": "sceaux_castle", "brighton_beach": "brighton_beach", "fox": "fox/images"}
ONE_CAMERA = ("fox",)  # frames of a video without EXIF: pycolmap's default would give each a camera of its own
NADIR = "brighton_beach"  # whose cameras all look straight down
IMAGE_SIZE = 480  # px, of our undistorted images
MODULE = "tests.benchmarks.sfm"
SCALING = (50, 200)  # photos of the demo scene
DEMO_SIZE = (640, 480)

logger = logging.getLogger("bench-sfm")


@dataclass(frozen=True)
class Run:
    """What one process cost, and what it left in its folder."""

    cpu_seconds: float
    peak_mb: float
    folder: Path


def run_apart(who: str, source: Path, folder: Path) -> Run:
    """Run one side in a process of its own. Raises CalledProcessError."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", MODULE, "--child", who, str(source), str(folder)]
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)  # with all descendants that were waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=(folder / "run.log").read_text()[-800:])
    return Run(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, folder)


def run_peer(source: Path, folder: Path, kept: Path | None) -> Run:
    """The peer, or what it left in `kept` when it ran before: model, CPU seconds and peak memory."""
    if kept is None:
        return run_apart("peer", source, folder)
    cost = kept / "cost.json"
    if not cost.is_file():
        shutil.rmtree(kept, ignore_errors=True)
        run = run_apart("peer", source, kept)
        cost.write_text(json.dumps([run.cpu_seconds, run.peak_mb]), encoding="utf-8")
        return run
    logger.info("pycolmap's defaults on %s: not run anew, taken from %s", source, kept)
    return Run(*json.loads(cost.read_text(encoding="utf-8")), kept)


def peer(source: Path, folder: Path) -> None:
    """pycolmap with its defaults."""
    import pycolmap  # here and below: what the other side does not import is no part of its cost

    pycolmap.logging.minloglevel = 2
    database = folder / "database.db"
    one = source.parent.name in ONE_CAMERA
    mode = pycolmap.CameraMode.SINGLE if one else pycolmap.CameraMode.AUTO
    pycolmap.extract_features(database, source, camera_mode=mode)
    pycolmap.match_exhaustive(database)
    models = pycolmap.incremental_mapping(database, source, folder)
    best = max(models.values(), key=lambda model: model.num_reg_images())
    (folder / "best").mkdir()
    best.write_binary(folder / "best")


def ours(source: Path, folder: Path) -> None:
    """The stages photos and sfm."""
    ingest(source, folder / "photos", PhotosOptions(), ignore_progress)
    section = reconstruct(folder / "photos", folder / "scene", SfmOptions(), IMAGE_SIZE, ignore_progress)
    (folder / "section.json").write_text(section.model_dump_json(), encoding="utf-8")


def section_of(folder: Path) -> SfmSection:
    return SfmSection.model_validate_json((folder / "section.json").read_text(encoding="utf-8"))


def bar(what: str, value: float, limit: float, *, least: bool = False) -> None:
    """One line: what was measured, and whether it meets its bar."""
    met = value >= limit if least else value <= limit
    logger.info("  %-4s %s: %.3g (bar: %s %.3g)", "met" if met else "MISS", what, value, "≥" if least else "≤", limit)


def show_agreement(what: str, found: Agreement, limits: tuple[float, float, float, float]) -> None:
    logger.info("  %s: %s", what, found)
    bar("rotation median, deg", found.rotation_median_deg, limits[0])
    bar("rotation max, deg", found.rotation_max_deg, limits[1])
    bar("position median, % of extent", found.position_median_percent, limits[2])
    bar("position max, % of extent", found.position_max_percent, limits[3])


def show_level(scene: Scene) -> None:
    """Is z up, and is the ground level?

    The gimbal's own record says that all cameras look down within 0.1 degrees, in opposite headings, so the mean of
    their views is a plumb line that our georeference knows nothing of. The ground is one too, where it is level.
    """
    views = np.stack([camera.cam_from_world[2, :3] for camera in scene.cameras])  # [N, 3] unit
    mean = views.mean(axis=0)
    bar("mean view, deg off straight down", float(np.degrees(np.arccos(-mean[2] / np.linalg.norm(mean)))), 2)
    ground = find_ground(scene.points.xyz)
    logger.info("  ground: %.0f %% of all points within %.1f m of one plane", ground.share * 100, TOLERANCE_M)
    bar("ground's tilt, deg", ground.tilt_deg, 2)


def bench_set(name: str, data: Path, runs: int, peer_runs: int, work: Path, kept: Path | None) -> tuple[float, float]:
    """Both sides in turn; returns the median CPU seconds of the peer (nan when it did not run) and of ours."""
    source = data / SETS[name]
    theirs: list[Run] = []
    mine: list[Run] = []
    for round_number in range(max(runs, peer_runs)):
        if round_number < peer_runs:
            key = f"{name}-peer-{round_number}"
            theirs.append(run_peer(source, work / key, None if kept is None else kept / key))
        if round_number < runs:
            mine.append(run_apart("ours", source, work / f"{name}-ours-{round_number}"))
    section, cpu = section_of(mine[-1].folder), statistics.median(run.cpu_seconds for run in mine)
    logger.info("%s, CPU-s of ours: %s", name, ", ".join(f"{run.cpu_seconds:.1f}" for run in mine))
    logger.info(
        "  %d registered in %d model(s), %s, %s + %s, %d points, %.2f px",
        *(section.registered, section.models, section.rung, section.matcher, section.mapper, section.points),
        section.mean_reprojection_error_px or 0.0,
    )
    bar("peak memory, GB", max(run.peak_mb for run in mine) / 1024, 0.6)
    if section.gps_residual_rms_m is not None:
        bar("GPS residual, m rms", section.gps_residual_rms_m, 0.5)
    if name == NADIR:
        show_level(Scene.load(mine[-1].folder / "scene"))
    if name == "fox":
        found = agreement(given_poses(data / "fox/transforms.json"), our_poses(mine[-1].folder))
        logger.info("  transforms.json: %s", found)
        bar("CPU-s", cpu, 40)
        bar("rotation median, deg", found.rotation_median_deg, 0.2)
        bar("rotation max, deg", found.rotation_max_deg, 0.5)
    if not theirs:
        return float("nan"), cpu
    their_cpu = statistics.median(run.cpu_seconds for run in theirs)
    logger.info("  pycolmap's defaults: %s CPU-s", ", ".join(f"{run.cpu_seconds:.1f}" for run in theirs))
    bar("times less CPU", their_cpu / cpu, 5, least=True)
    reference = peer_poses(theirs[-1].folder)
    bar("registered", section.registered, len(reference), least=True)
    show_agreement("pycolmap's defaults", agreement(reference, our_poses(mine[-1].folder)), (0.05, 0.1, 0.05, 0.12))
    return their_cpu, cpu


def bench_scaling(work: Path) -> None:
    """What one photo costs of 50, and of 200 photos of the same place."""
    from tasks.core.demo.flight import fly
    from tasks.core.demo.flight_plan import DemoOptions

    costs = []
    for photos in SCALING:
        source = work / f"flight-{photos}"
        fly(source, DemoOptions(photos=photos, width=DEMO_SIZE[0], height=DEMO_SIZE[1]), ignore_progress)
        run = run_apart("ours", source, work / f"demo-{photos}")
        section = section_of(run.folder)
        costs.append(run.cpu_seconds / photos)
        logger.info(
            "demo of %d photos: %.1f CPU-s, %.2f for a photo, %d registered, %s",
            *(photos, run.cpu_seconds, costs[-1], section.registered, section.matcher),
        )
    bar(f"cost of a photo, {SCALING[1]} over {SCALING[0]} photos", costs[1] / costs[0], 1.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of ours, on each set")
    parser.add_argument("--peer-runs", type=int, default=1, help="of pycolmap's defaults, 13 CPU minutes for all sets")
    parser.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--data", type=Path, default=SHARED_DATA, help="the folder with the photo sets")
    parser.add_argument("--keep-peer", type=Path, help="a folder for the peer's results, which later calls take up")
    parser.add_argument("--without-scaling", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        who, source, folder = arguments.child
        (peer if who == "peer" else ours)(Path(source), Path(folder))
        return
    logger.info("1-minute load %.1f", os.getloadavg()[0])
    work = Path(tempfile.mkdtemp(prefix="bench-sfm-"))
    try:
        how = (arguments.data, arguments.runs, arguments.peer_runs, work, arguments.keep_peer)
        totals = [bench_set(name, *how) for name in arguments.sets]
        if arguments.peer_runs and set(arguments.sets) == set(SETS):
            logger.info("all sets")
            bar("times less CPU", sum(theirs for theirs, _ in totals) / sum(own for _, own in totals), 9, least=True)
        if not arguments.without_scaling:
            bench_scaling(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
