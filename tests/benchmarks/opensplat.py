"""OpenSplat as a peer: named by its path, run as a process of its own on a COLMAP project that we write for it."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tasks.core.scene import Scene

SAVE_EVERY = 10  # steps
# The scene's own coordinates, in which it is measured; and photos at half size for 400 steps instead of a quarter and
# a half for 6000, which no run of minutes gets past.
SETTINGS = ("--keep-crs", "--num-downscales", "1", "--resolution-schedule", "400")
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


def train_for(program: str, scene: Scene, names: list[str], folder: Path, seconds: float) -> tuple[Path, float, int]:
    """Its newest .ply after so many seconds on the named views, the seconds until it was written, and its step."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    source = scene.folder / "sparse" / "0"
    # pycolmap in a process of its own, as everywhere
    subprocess.run([sys.executable, "-c", PROJECT, str(source), str(model), *names], check=True)
    shutil.copytree(scene.folder / "images", folder / "images")
    out = folder / "splat.ply"
    command = [program, str(folder), "--cpu", "-n", "1000000", "-s", str(SAVE_EVERY), "-o", str(out), *SETTINGS]
    started = time.time()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    written = sorted(folder.glob("splat_*.ply"), key=lambda path: int(path.stem.split("_")[1]))
    if not written:
        raise SystemExit(f"{program} wrote nothing in {seconds:.0f} s: {(folder / 'log').read_text()[-2000:]}")
    newest = written[-2] if len(written) > 1 else written[-1]  # the last may be half-written
    return newest, newest.stat().st_mtime - started, int(newest.stem.split("_")[1])
