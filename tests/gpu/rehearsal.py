"""Do and time the CPU work that precedes the GPU's: `python -m tests.gpu.rehearsal [--scene DIR]`.

It imports every program of a run, reads the scene as the trainings do and makes their starts, so that nothing of this
fails, or takes long, for the first time on a machine that is paid by the minute.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from tasks.core.scene import Scene


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, help="a Scene folder; without one only the imports are tried")
    folder = parser.parse_args(argv).scene
    with timed("importing the programs and the engine"):
        from tasks.core.training import torch_engine  # noqa: F401
        from tasks.core.training.coverage import with_gaps_filled
        from tasks.core.training.plan import split_cameras
        from tasks.core.training.views import load_view
        from tests.gpu import demo, report  # noqa: F401
        from tests.gpu.side_by_side import OURS_OPTIONS, STOCK
        from tests.gpu.stock import start
    if folder is None:
        return
    with timed("reading the scene and its photos"):
        scene = Scene.load(folder)
        cameras, held_out = split_cameras(scene, OURS_OPTIONS.hold_out_every)
        views = [load_view(scene, camera, OURS_OPTIONS.max_image_size) for camera in cameras]
    photo = views[0].photos[0]
    print(f"{len(cameras)} photos of {photo.shape[1]}x{photo.shape[0]} and {len(held_out)} held out")
    with timed("filling gaps for ours"):
        points = with_gaps_filled(scene.points, views, scene.up, np.random.default_rng(0))
    print(f"{len(points.xyz):,} points, of {len(scene.points.xyz):,}")
    with timed("the stock strategies' starts"):
        for kind in STOCK:
            start(scene, kind, torch.Generator().manual_seed(0))


if __name__ == "__main__":
    main()
