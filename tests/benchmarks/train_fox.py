"""Held-out PSNR over training time on the fox set: `python -m tests.benchmarks.train_fox [--preset P] [--size PX] …`.

The bar, for the standard preset at 480 px on two quiet cores: at least 28 dB after 60 s and 30 dB after 180 s. On a
machine that does other things, run with NUMBA_NUM_THREADS=1 and read the CPU seconds: two threads of one core give
about 1.3 to 1.9 times one.
"""

import argparse
import tempfile
import time
from pathlib import Path

from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.render.warmup import compile_kernels
from tasks.core.scene import Scene
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.reconstruct import reconstruct
from tasks.core.training.options import TRAIN_PRESETS
from tasks.core.training.trainer import TrainingStats, train

FOX = Path(__file__).parents[3] / "shared" / "data" / "fox" / "images"


def fox_scene(folder: Path, image_size: int) -> Scene:
    """The fox's photos through our own first two stages."""
    ingest(FOX, folder / "photos", PhotosOptions(), ignore_progress)
    reconstruct(folder / "photos", folder / "scene", SfmOptions(), image_size, ignore_progress)
    return Scene.load(folder / "scene")


def main() -> None:
    """Train and print the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=TRAIN_PRESETS, default="standard")
    parser.add_argument("--size", type=int, default=480, help="long side of the photos in px")
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    parser.add_argument("--max-gaussians", type=int, help="instead of the preset's")
    parser.add_argument("--scene", type=Path, help="a Scene folder, instead of structure from motion on the fox")
    parser.add_argument("--out", type=Path, help="folder that receives scene.ply")
    arguments = parser.parse_args()

    changes = {"max_image_size": arguments.size, "steps": arguments.steps, "max_gaussians": arguments.max_gaussians}
    options = TRAIN_PRESETS[arguments.preset].model_copy(
        update={name: value for name, value in changes.items() if value is not None}
    )
    compile_kernels(ignore_progress)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scene = Scene.load(arguments.scene) if arguments.scene else fox_scene(folder, options.max_image_size)
        out = arguments.out or folder
        started, last = time.process_time(), [0.0]

        def show(stats: TrainingStats) -> None:
            if stats.psnr_db is not None and stats.psnr_db != last[0]:
                last[0] = stats.psnr_db
                used = time.process_time() - started
                print(
                    f"step {stats.step:6} {stats.num_gaussians:7} Gaussians {stats.seconds:7.1f} s "
                    f"{used:7.1f} CPU-s {stats.psnr_db:6.2f} dB",
                    flush=True,
                )

        section = train(scene, out, options, show)
    end = section.curve[-1]
    print(
        f"end  {end.step:6} {section.num_gaussians:7} Gaussians {end.seconds:7.1f} s "
        f"{time.process_time() - started:7.1f} CPU-s {end.psnr_db:6.2f} dB, SSIM {section.ssim:.4f}"
    )


if __name__ == "__main__":
    main()
