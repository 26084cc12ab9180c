"""Held-out PSNR against training time: `make bench-train`, or `python -m tests.benchmarks.train [SET …] [options]`.

SET is `fox`, `brighton` or `demo`; without one, the bars are measured: fox at 480 px with time budgets of 20, 60, 120
and 240 s (bars: 28.0, 30.0, 31.0 and 31.5 dB), then the standard preset on brighton at its own size and on the demo at
480 px. Every 8th view is held out. Cameras and points come from our own structure from motion.

With OPENSPLAT=path (version 1.2.0) the peer trains beside ours, in turn, on the same COLMAP model without the held-out
views, for about as many seconds as --peer-seconds says; its .ply is rendered and measured as ours is.

On a machine that does other things, read the CPU seconds: two threads of one core give 1.3 to 1.9 times one.
"""

import argparse
import os
import tempfile
import time
from operator import attrgetter
from pathlib import Path

from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.ply import read_ply
from tasks.core.progress import ignore_progress
from tasks.core.render.backends import rasterizer_for
from tasks.core.render.warmup import compile_kernels
from tasks.core.scene import Scene
from tasks.core.sfm.options import SfmOptions
from tasks.core.training.coverage import covered_pixels
from tasks.core.training.evaluate import evaluate_completely, mean_of
from tasks.core.training.held_out import split_views
from tasks.core.training.options import TRAIN_PRESETS, TrainOptions
from tasks.core.training.trainer import TrainingStats, train
from tasks.core.training.views import load_view
from tests.core.sfm.whole_stage import reconstruct

DATA = Path(__file__).parents[3] / "shared" / "data"
PHOTOS = {"fox": DATA / "fox" / "images", "brighton": DATA / "brighton_beach"}
FOX_BARS = ((20, 28.0), (60, 30.0), (120, 31.0), (240, 31.5))  # seconds, dB
SMALL_PX, SMALL_PIXELS_PER_GAUSSIAN = 480, 4.0  # of the fox and the demo: about as many Gaussians as at 60,000 at most
MOST_STEPS = 1_000_000  # so that the time budget decides
HOLD_OUT_EVERY = 8


def scene_of(name: str, folder: Path, image_size: int) -> Scene:
    """The set's photos through our own first two stages; made once for each folder and size."""
    out = folder / f"{name}-{image_size}"
    if not (out / "scene.json").exists():
        photos = PHOTOS.get(name, folder / "demo-flight")
        if name == "demo":
            fly(photos, DemoOptions(), ignore_progress)
        if not (folder / f"{name}-photos").exists():
            ingest(photos, folder / f"{name}-photos", PhotosOptions(), ignore_progress)
        reconstruct(folder / f"{name}-photos", out, SfmOptions(), image_size, ignore_progress)
    return Scene.load(out)


def measure(label: str, scene: Scene, options: TrainOptions, out: Path, *, curve: bool = False) -> float:
    """Train, print a line, and with `curve` one for each evaluation; returns the PSNR at the end."""
    started, last = time.process_time(), [0.0]

    def show(stats: TrainingStats) -> None:
        if curve and stats.psnr_db is not None and stats.psnr_db != last[0]:
            last[0] = stats.psnr_db
            used = time.process_time() - started
            print(
                f"  step {stats.step:6} {stats.num_gaussians:7} Gaussians {stats.seconds:7.1f} s "
                f"{used:7.1f} CPU-s {stats.psnr_db:6.2f} dB",
                flush=True,
            )

    section = train(scene, out, options, show)
    end = section.curve[-1]
    print(
        f"{label:28} {end.psnr_db:6.2f} dB, SSIM {section.ssim:.3f}, GMSD {section.gmsd:.3f}, "
        f"detail {section.detail:.3f} ({section.detail_covered:.3f} where covered), {end.seconds:6.1f} s, "
        f"{time.process_time() - started:6.1f} CPU-s, {section.steps:6} steps, {section.num_gaussians:7} Gaussians, "
        f"ended by {section.stopped_by}",
        flush=True,
    )
    return end.psnr_db


def measure_opensplat(program: str, scene: Scene, options: TrainOptions, folder: Path, seconds: float) -> None:
    """Let OpenSplat train for about so many seconds on the views that are not held out, and measure what it wrote."""
    from tests.benchmarks.opensplat import train_for  # needs pycolmap, which ours must not share a process with

    training, held_out = split_views(scene, HOLD_OUT_EVERY)
    ply, took, steps = train_for(program, scene, [camera.name for camera in training], folder, seconds)
    views = [load_view(scene, camera, options.max_image_size) for camera in held_out]
    covered = covered_pixels([view.cameras[0] for view in views], training, scene.points)
    found = evaluate_completely(read_ply(ply), views, rasterizer_for("cpu"), covered)
    ssim, gmsd, detail = (mean_of(found.qualities, attrgetter(name)) for name in ("ssim", "gmsd", "detail"))
    label = f"OpenSplat, {took:.0f} s"
    print(
        f"{label:28} {found.mean_psnr_db:6.2f} dB, SSIM {ssim:.3f}, GMSD {gmsd:.3f}, "
        f"detail {detail:.3f}, {steps} steps",
        flush=True,
    )


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help="fox, brighton, demo; none for the bars")
    parser.add_argument("--preset", choices=TRAIN_PRESETS, default="standard")
    parser.add_argument("--size", type=int, help="long side of the photos in px (default: 480; brighton: the preset's)")
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    parser.add_argument("--seconds", type=float, help="a time budget instead of steps")
    parser.add_argument("--max-gaussians", type=int, help="instead of the preset's")
    parser.add_argument("--pixels-per-gaussian", type=float, help="instead of the preset's (4 at 480 px)")
    parser.add_argument("--scenes", type=Path, help="folder that keeps the scenes for the next call")
    parser.add_argument("--peer-seconds", type=float, default=120, help="of OPENSPLAT (default 120)")
    arguments = parser.parse_args()

    compile_kernels(ignore_progress)
    preset = TRAIN_PRESETS[arguments.preset].model_copy(
        update={"hold_out_every": HOLD_OUT_EVERY, "use_all_photos": False}
    )
    with tempfile.TemporaryDirectory() as temporary:
        scenes = arguments.scenes or Path(temporary)
        print(f"{os.cpu_count()} cores, preset {arguments.preset}")
        for name in arguments.sets or ("fox", "brighton", "demo"):
            size = arguments.size or (preset.max_image_size if name == "brighton" else SMALL_PX)
            fine = SMALL_PIXELS_PER_GAUSSIAN if size == SMALL_PX and arguments.preset == "standard" else None
            scene = scene_of(name, scenes, size)
            changes = {
                "max_image_size": size,
                "steps": MOST_STEPS if arguments.seconds else arguments.steps,
                "time_budget_seconds": arguments.seconds,
                "max_gaussians": arguments.max_gaussians,
                "pixels_per_gaussian": arguments.pixels_per_gaussian or fine,
            }
            options = preset.model_copy(update={key: value for key, value in changes.items() if value is not None})
            if arguments.sets or name != "fox":
                measure(f"{name}, {size} px", scene, options, Path(temporary), curve=bool(arguments.sets))
            else:
                for seconds, bar in FOX_BARS:
                    timed = options.model_copy(update={"steps": MOST_STEPS, "time_budget_seconds": seconds})
                    found = measure(f"fox, 480 px, {seconds} s", scene, timed, Path(temporary))
                    print(f"{'':28} {'reached' if found >= bar else 'MISSED'} {bar:.1f} dB")
            if "OPENSPLAT" in os.environ:
                measure_opensplat(
                    os.environ["OPENSPLAT"], scene, options, Path(temporary) / f"peer-{name}", arguments.peer_seconds
                )


if __name__ == "__main__":
    main()
