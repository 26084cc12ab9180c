"""Training with all photos in memory, and with few: `python -m tests.benchmarks.photos_in_memory [options]`.

A made scene, trained in a process of its own each time, in turn. Memory is what training adds to the process: the
kernel's peak less what was resident before, with libraries loaded. The files are compared, which have to be equal.
Before, reading alone: CPU time of both threads for photos in the order of training, which compute nothing in between.

On a machine that does other things, read the CPU seconds.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from math import prod
from pathlib import Path

import numpy as np

from tasks.core.progress import ignore_progress
from tasks.core.render.warmup import compile_kernels
from tasks.core.scene import Scene
from tasks.core.training.options import TrainOptions
from tasks.core.training.photo_file import PhotoFile
from tasks.core.training.trainer import PLY_FILE, train
from tasks.core.training.views import EndlessShuffle
from tasks.core.usage import PeakMemory, memory_in_use_bytes
from tests.core.training.scenes import made_scene

READ_FROM, READS = 100, 500  # photos


def measure(folder: Path, options: TrainOptions) -> dict[str, float | str]:
    """Train and return seconds, CPU seconds, MB and a digest of the Gaussians."""
    compile_kernels(ignore_progress)
    scene = Scene.load(folder)
    before = memory_in_use_bytes()
    with tempfile.TemporaryDirectory() as out, PeakMemory() as memory:
        wall, cpu = time.monotonic(), time.process_time()
        section = train(scene, Path(out), options, lambda _: None)
        found = {
            "seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "digest": hashlib.sha256((Path(out) / PLY_FILE).read_bytes()).hexdigest(),
            "gaussians": section.num_gaussians,
        }
    return {**found, "megabytes": (memory.peak_bytes - before) / 1e6}


def reading_ms(width: int, most: int) -> float:
    """CPU-ms a photo for reading, in the order of training, with at most so many of READ_FROM photos in memory."""
    generator = np.random.default_rng(0)
    shape = (width * 3 // 4, width, 3)
    with tempfile.TemporaryDirectory() as folder:
        file = PhotoFile(Path(folder), READ_FROM * prod(shape), most)
        photos = [file.stored([generator.integers(0, 256, shape, np.uint8)]) for _ in range(READ_FROM)]
        order = EndlessShuffle(READ_FROM, generator)
        began = time.process_time()
        for _ in range(READS):
            photos[order.next()][0]
            file.expect([(photos[index], 0) for index in order.upcoming(file.most_ahead)])
        file.photo(photos[order.next()].places[0])  # waits for the reader
        return 1000 * (time.process_time() - began) / READS


def main() -> None:
    """Make the scene, train in processes of their own, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--width", type=int, default=640, help="of a photo in px; three quarters as high")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--most", type=int, nargs="*", default=[16], help="bounds besides all photos")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scene", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.scene:
        options = TrainOptions(
            max_image_size=arguments.width, steps=arguments.steps, max_gaussians=20_000, backend="cpu", fill_gaps=False,
            early_stop=False, max_photos_in_memory=arguments.most[0] or None,
        )  # fmt: skip
        print(json.dumps(measure(arguments.scene, options)))
        return
    for most in arguments.most:
        taken = reading_ms(arguments.width, most)
        print(f"reading, at most {most} in memory: {taken:.2f} CPU-ms a photo", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "scene"
        made_scene(folder, arguments.photos, arguments.width, arguments.width * 3 // 4, points=300)
        digests = set()
        for _ in range(arguments.rounds):
            for most in (0, *arguments.most):
                command = [sys.executable, "-m", __spec__.name, "--scene", str(folder), "--most", str(most)]
                command += ["--width", str(arguments.width), "--steps", str(arguments.steps)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                digests.add(found["digest"])
                print(
                    f"{arguments.photos} photos of {arguments.width} px, at most {most or 'all':>4} in memory: "
                    f"{found['seconds']:6.1f} s, {found['cpu_seconds']:6.1f} CPU-s, {found['megabytes']:6.0f} MB more "
                    f"memory, {found['gaussians']:,} Gaussians, {found['digest'][:8]}",
                    flush=True,
                )
        print("the same bytes each time" if len(digests) == 1 else f"{len(digests)} DIFFERENT results")


if __name__ == "__main__":
    main()
