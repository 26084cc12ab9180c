"""Measure the division of many photos into cells: `python -m tests.benchmarks.cells_many [PHOTOS …]` (1250 to 5000).

A survey is simulated: cameras over a plain in rows, with points that each observes, and small photos of noise. Each
number of photos is a process of its own. CPU seconds and memory for a photo should not grow with their number.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.progress import ignore_progress
from tasks.core.scene import Camera, Observations, Scene, SparsePoints
from tasks.core.training.cells.count import number_of_cells
from tasks.core.training.cells.divide import divide
from tasks.core.training.options import TRAIN_PRESETS, budgeted
from tasks.core.transforms import rigid

WIDTH, HEIGHT = 160, 120
HEIGHT_M, STEP_M = 60.0, 15.0  # over ground; between neighbours in both directions
POINTS_PER_PHOTO, OBSERVED = 100, 400


def survey(folder: Path, photos: int) -> Scene:
    """A scene of cameras that look down, in rows, as structure from motion would write it."""
    rng = np.random.default_rng(0)
    per_row = round(photos**0.5)
    columns, rows = np.arange(photos) % per_row, np.arange(photos) // per_row
    places = np.column_stack([columns * STEP_M, rows * STEP_M, np.full(photos, HEIGHT_M)])
    places += rng.normal(0, 1, places.shape)
    down = np.diag([1.0, -1.0, -1.0])
    focal = 0.67 * WIDTH
    cameras = tuple(
        Camera(f"{i:05}.jpg", WIDTH, HEIGHT, focal, focal, WIDTH / 2, HEIGHT / 2, rigid(down, -down @ place))
        for i, place in enumerate(places)
    )
    (folder / "images").mkdir(parents=True)
    noise = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(8)]
    for i, camera in enumerate(cameras):
        Image.fromarray(noise[i % 8]).save(folder / "images" / camera.name, quality=80)
    points = photos * POINTS_PER_PHOTO
    xyz = np.column_stack([rng.uniform(-30, per_row * STEP_M + 15, (points, 2)), rng.uniform(0, 8, points)])
    order = np.argsort(xyz[:, 1])
    xyz = xyz[order]
    half = np.array([WIDTH, HEIGHT]) / 2 / focal * HEIGHT_M
    observing, observed = [], []
    for i, place in enumerate(places):
        begin, end = np.searchsorted(xyz[:, 1], [place[1] - half[1], place[1] + half[1]])
        near = begin + np.flatnonzero(np.abs(xyz[begin:end, 0] - place[0]) < half[0])
        some = rng.choice(near, min(OBSERVED, len(near)), replace=False)
        observing.append(np.full(len(some), i))
        observed.append(some)
    scene = Scene(
        folder=folder,
        cameras=cameras,
        points=SparsePoints(
            xyz, rng.integers(40, 220, (points, 3)).astype(np.uint8), np.ones(points), np.full(points, 8, np.int32)
        ),
        up=np.array([0.0, 0.0, 1.0]),
        observations=Observations(
            np.concatenate(observing).astype(np.int32), np.concatenate(observed).astype(np.int32)
        ),
    )
    scene.save()
    return scene


def divide_here(folder: Path) -> None:
    """Divide the scene in this process and print what it took as JSON."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    scene = Scene.load(folder)
    photos = len(scene.cameras)
    options = budgeted(TRAIN_PRESETS["draft"].model_copy(), "draft", "cpu", photos)
    count = number_of_cells(options, photos, photos * WIDTH * HEIGHT, None)
    out = folder / "cells"
    out.mkdir()
    started = time.monotonic()
    found = divide(scene, out, options, count, ignore_progress)
    after = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "photos": photos,
        "cells": len(found.cells),
        "views": sum(cell.views for cell in found.cells) / photos,
        "largest": max(cell.share for cell in found.cells) * len(found.cells),
        "seconds": time.monotonic() - started,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "grown_bytes": (after.ru_maxrss - before.ru_maxrss) * 1024,
        "file_bytes": sum(file.stat().st_size for file in out.iterdir()),
    }
    print(json.dumps(told))


def main() -> None:
    """Print a line for each number of photos."""
    if sys.argv[1:2] == ["--here"]:
        divide_here(Path(sys.argv[2]))
        return
    for photos in [int(text) for text in sys.argv[1:]] or [1250, 2500, 5000]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "scene"
            survey(folder, photos)
            command = [sys.executable, "-m", "tests.benchmarks.cells_many", "--here", str(folder)]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(
            f"{photos:6,} photos: {told['cells']:3} cells, a photo in {told['views']:.2f}, "
            f"the largest {told['largest']:.2f} of the mean; {1000 * told['cpu_seconds'] / photos:5.1f} CPU-ms and "
            f"{told['grown_bytes'] / photos / 1000:6.1f} kB of memory a photo, {told['file_bytes'] / 1e6:.1f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
