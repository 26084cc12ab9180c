"""Photos and sfm on the three real sets: `python tests/benchmarks/sfm_real_sets.py [image_size]`.

CPU seconds are user + system of this process and its workers; peak memory is the worker's. The fox set brings poses
that another COLMAP solved (transforms.json): agreement with them is agreement of two solutions, not error.
"""

import json
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.reconstruct import reconstruct
from tasks.core.transforms import rotation_angle_deg, similarity_from_points

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared/data"
SETS = {"sceaux_castle": "sceaux_castle", "brighton_beach": "brighton_beach", "fox": "fox/images"}
DEFAULT_IMAGE_SIZE = 480
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])  # transforms.json: camera axes x right, y up, z backwards

logger = logging.getLogger("sfm_real_sets")


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def agreement(scene: Scene, transforms: Path) -> str:
    """Median and greatest differences of rotations, and of centres in percent of the scene's extent.

    Rotations are aligned by themselves: those of the centres' alignment add one offset to all.
    """
    frames = json.loads(transforms.read_text(encoding="utf-8"))["frames"]
    theirs = {Path(frame["file_path"]).name: np.array(frame["transform_matrix"]) for frame in frames}
    cameras = [camera for camera in scene.cameras if camera.name in theirs]
    given = [theirs[camera.name] for camera in cameras]
    scale, rotation, translation = similarity_from_points(
        np.stack([camera.center for camera in cameras]), np.stack([matrix[:3, 3] for matrix in given])
    )
    found = np.stack([camera.center for camera in cameras]) @ (scale * rotation).T + translation
    wanted = np.stack([matrix[:3, 3] for matrix in given])
    extent = 2 * np.linalg.norm(wanted - wanted.mean(axis=0), axis=1).max()
    position_percent = np.linalg.norm(found - wanted, axis=1) / extent * 100
    between = np.stack(
        [
            matrix[:3, :3] @ OPENCV_FROM_OPENGL @ camera.cam_from_world[:3, :3]
            for camera, matrix in zip(cameras, given, strict=True)
        ]
    )  # their world from ours, once for each camera
    u, _, vt = np.linalg.svd(between.mean(axis=0))
    turned_deg = rotation_angle_deg(between @ (u @ vt).T)
    return (
        f"{len(cameras)} poses: rotation median {np.median(turned_deg):.3f} max {turned_deg.max():.3f} deg, "
        f"position median {np.median(position_percent):.3f} max {position_percent.max():.3f} %"
    )


def main() -> None:
    image_size = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_IMAGE_SIZE
    for name, place in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            started, cpu = time.perf_counter(), cpu_seconds()
            photos = ingest(SHARED_DATA / place, work / "photos", PhotosOptions(), ignore_progress)
            ingested, cpu_ingested = time.perf_counter(), cpu_seconds()
            section = reconstruct(work / "photos", work / "scene", SfmOptions(), image_size, ignore_progress)
            ended, cpu_ended = time.perf_counter(), cpu_seconds()
            residual = "none" if section.gps_residual_rms_m is None else f"{section.gps_residual_rms_m:.2f} m"
            logger.info(
                "%s at %d px: %d of %d registered, %d model(s), %s + %s, %d points, %.3f px, GPS residual %s; "
                "photos %.1f CPU-s %.1f s, sfm %.1f CPU-s %.1f s, peak %.0f MB (greatest worker so far)",
                *(name, image_size, section.registered, len(photos.photos), section.models),
                *(section.matcher, section.mapper, section.points, section.mean_reprojection_error_px, residual),
                *(cpu_ingested - cpu, ingested - started, cpu_ended - cpu_ingested, ended - ingested),
                resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
            )
            if name == "fox":
                logger.info(
                    "fox, agreement with transforms.json: %s",
                    agreement(Scene.load(work / "scene"), SHARED_DATA / "fox/transforms.json"),
                )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
