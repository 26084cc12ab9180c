"""OpenSplat as a peer: named by its path, run as a process of its own on a COLMAP project that we write for it.

For version 1.2.0 of August 2026 (github.com/WebODM/OpenSplat). Version 1.1.5, the peer before, must not be measured
against torch 2.13: it reads depths by a pointer as if they were contiguous, which they are not there, and so sorts
Gaussians by other numbers. That costs it 6 dB.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tasks.core.scene import Scene

TRIAL_STEPS = 200  # from whose time the number of steps of a run follows
PROJECT = """
import sys
import pycolmap
source, target, *names = sys.argv[1:]
model = pycolmap.Reconstruction(source)
for image in list(model.images.values()):
    if image.name not in names:
        model.deregister_frame(image.frame_id)
model.write(target)
"""


def settings_for(steps: int) -> list[str]:
    """The best settings that were found for so few steps; the defaults are made for 30,000.

    Photos at a quarter and at half size for the first 0.6 of the steps. Density control every 100 steps until the end:
    after it, Adam steps only at every 32nd iteration.
    """
    numbers = {
        "-n": steps,
        "--num-downscales": 2,
        "--resolution-schedule": max(round(0.3 * steps), 1),
        "--densify-from": 100,
        "--refine-every": 100,
        "--densify-until": steps,
        "--sh-degree-interval": max(round(steps / 3), 1),
    }
    return [str(part) for pair in numbers.items() for part in pair]


def train_for(program: str, scene: Scene, names: list[str], folder: Path, seconds: float) -> tuple[Path, float, int]:
    """Its .ply after about so many seconds on the named views, the seconds that it took, and the number of steps."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    source = scene.folder / "sparse" / "0"
    # pycolmap in a process of its own, as everywhere
    subprocess.run([sys.executable, "-c", PROJECT, str(source), str(model), *names], check=True)
    shutil.copytree(scene.folder / "images", folder / "images")
    out = folder / "splat.ply"
    steps = max(round(TRIAL_STEPS * seconds / _run(program, folder, out, TRIAL_STEPS)), 1)
    return out, _run(program, folder, out, steps), steps


def _run(program: str, folder: Path, out: Path, steps: int) -> float:
    """Train for so many steps; the seconds that it took."""
    command = [program, str(folder), "--cpu", "-o", str(out), *settings_for(steps)]
    started = time.monotonic()
    with (folder / "log").open("wb") as log:
        # Its threads wait without spinning, which makes it twice as fast on a machine with other work
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    if ended.returncode or not out.exists():
        raise SystemExit(f"{program} failed: {(folder / 'log').read_text()[-2000:]}")
    return time.monotonic() - started
