"""The stages' outputs of a small scene, computed by the code in any folder, to compare two versions of it.

`outputs_of` runs this file's own text as a program in the folder whose code is to be used.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

STEPS = 30


def outputs_of(code: Path, photos: Path, out: Path) -> dict[str, str]:
    """By stage, a digest of what the code in a folder makes of these photos."""
    program = Path(__file__).read_text(encoding="utf-8")
    command = [sys.executable, "-c", program, str(photos), str(out)]
    done = subprocess.run(command, cwd=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    digests: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return digests


def compute(photos: Path, out: Path) -> dict[str, str]:
    """Run what is kept of the stages, on photos of the demo, with this process's code."""
    from tasks.core.measurements import TrainSection
    from tasks.core.photos.ingest import ingest
    from tasks.core.photos.options import PhotosOptions
    from tasks.core.progress import ignore_progress
    from tasks.core.render.backends import rasterizer_for
    from tasks.core.scene import Scene
    from tasks.core.sfm.cameras import find_cameras
    from tasks.core.sfm.options import SfmOptions
    from tasks.core.sfm.undistort import undistort_scene
    from tasks.core.sog.compress import compress
    from tasks.core.sog.options import CompressOptions
    from tasks.core.training.options import TrainOptions
    from tasks.core.training.trainer import train

    folders = {stage: out / stage for stage in ("photos", "cameras", "sfm", "train", "compress")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    ingest(photos, folders["photos"], PhotosOptions(), ignore_progress)
    find_cameras(folders["photos"], folders["cameras"], SfmOptions(), ignore_progress)
    undistort_scene(folders["cameras"], folders["photos"], folders["sfm"], 240, ignore_progress)
    options = TrainOptions(steps=STEPS, max_gaussians=3000, max_image_size=240, sh_degree=1, backend="cpu")
    trained: TrainSection = train(Scene.load(folders["sfm"]), folders["train"], options, lambda stats: None)
    compress(
        folders["train"] / "scene.ply",
        Scene.load(folders["sfm"]),
        trained.eval_views,
        folders["compress"],
        CompressOptions(),
        rasterizer_for("cpu"),
        ignore_progress,
    )
    return {stage: _digest(folder) for stage, folder in folders.items()}


def _digest(folder: Path) -> str:
    """Of all files but logs, which say when and how long."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".log":
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps(compute(Path(sys.argv[1]), Path(sys.argv[2]))))
