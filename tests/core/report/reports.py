"""A run's worth of measurements, files included, for tests of the report."""

from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.measurements import (
    CurvePoint,
    EstimateSection,
    LeftOutPhoto,
    PhotosSection,
    Report,
    SecondsSection,
    SfmSection,
    SogSection,
    TrainSection,
    held_out_picture,
)
from tasks.core.photoset import RejectedPhoto
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import Scene
from tests.core.sog.splats import terrain
from tests.core.viewer.scenes import orbit, scene_of


def pictured_scene(folder: Path, cameras: int = 16) -> Scene:
    """A scene whose images are renders of the terrain with some noise."""
    scene = scene_of(folder, orbit(cameras), georeferenced=True)
    rng, rasterizer = np.random.default_rng(0), rasterizer_for("cpu")
    splat = terrain(1500, 1)
    for camera in scene.cameras:
        path = scene.image_path(camera)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rasterizer.render(splat, camera) + rng.normal(0, 0.03, (camera.height, camera.width, 3))
        Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path, quality=90)
    return scene


def full_report(scene: Scene, held_out: tuple[str, ...]) -> Report:
    return Report(
        capture='Field <script>alert("x")</script> & barn',
        created_at="2026-11-23T09:30:00+00:00",
        photos=PhotosSection(
            found=19,
            usable=18,
            rejected=(RejectedPhoto(name="notes <1>.txt", reason="not an image"),),
            not_read={".<b>": 2},
            notes=("2 other files were not read: .<b> (2).",),
        ),
        sfm=SfmSection(
            registered=len(scene.cameras),
            unregistered=("flight/90.jpg", "flight/91.jpg"),
            left_out=(
                LeftOutPhoto(name="flight/90.jpg", reason="only 12 features: blurred", position_m=(12.0, 3.0, 5.0)),
                LeftOutPhoto(name="flight/91.jpg", reason="shares no points with any other photo"),
            ),
            models=2,
            mean_reprojection_error_px=0.61,
            points=len(scene.points.xyz),
            georeferenced=True,
            gps_residual_rms_m=0.8,
            matcher="exhaustive",
            mapper="incremental",
        ),
        train=TrainSection(
            backend="cpu",
            steps=2400,
            num_gaussians=31250,
            image_width=480,
            image_height=300,
            psnr_db=24.317,
            ssim=0.8123,
            gmsd=0.1034,
            detail=0.7361,
            psnr_db_covered=25.108,
            ssim_covered=0.8467,
            gmsd_covered=0.0877,
            detail_covered=0.8649,
            covered_share=0.6234,
            color_corrected_psnr_db=25.02,
            eval_views=held_out,
            eval_psnr_db=tuple(24.0 + 0.25 * i for i in range(len(held_out))),
            eval_detail=tuple(0.7 + 0.01 * i for i in range(len(held_out))),
            stopped_by="time budget",
            curve=tuple(CurvePoint(step=300 * i, seconds=40.0 * i, psnr_db=24.5 - 9 * 0.6**i) for i in range(1, 8)),
        ),
        sog=SogSection(bytes=431_000, ply_bytes=7_420_000, psnr_drop_db=0.21, sh_bands=3),
        seconds=SecondsSection(photos=1.2, sfm=48.0, train=301.0, compress=6.4, publish=2.0, total=358.6),
        estimate=EstimateSection(
            seconds=SecondsSection(photos=1.4, sfm=51.0, train=280.0, compress=5.1, publish=2.2, total=342.0),
            peak_memory_bytes=1_390_000_000,
        ),
        peak_memory_bytes=1_480_000_000,
        cache_hits=("photos",),
        degradations=("Training used 480 px instead of 960 px because 1.1 GiB of memory was free.",),
        options={"preset": "draft", "train": {"seconds": 300, "max_gaussians": None}},
        versions={"spaceport": "0.1.0", "python": "3.11.2"},
    )


def save_renders(scene: Scene, held_out: tuple[str, ...], folder: Path) -> Path:
    """Stand-ins for what compress writes: the photos themselves, darker."""
    folder.mkdir()
    for camera in scene.cameras:
        if camera.name in held_out:
            dark = Image.fromarray((scene.image(camera) * 0.7).astype(np.uint8))
            dark.save(folder / held_out_picture(camera.name))
    return folder
