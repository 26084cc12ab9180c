"""Training in cells against one part: `make bench-cells`, or `python -m tests.benchmarks.cells [options]`.

The demo's flight is trained in one part and in cells, with the same photos, Gaussians and random seed. Each part is a
process of its own, whose peak memory is printed. The splat of one part is measured at the same seams.

Two budgets of steps: "as often" draws each photo that shows a part of a cell as often as the one part draws the photo,
so that as many pixels are trained on; "same steps" has as many steps as the one part, most of which show a part of a
photo only.

With --workers the cells are trained again by processes that have one core each: first one process, then two.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.photos.ingest import ingest
from tasks.core.photos.options import PhotosOptions
from tasks.core.progress import ignore_progress
from tasks.core.scene import Scene
from tasks.core.training.options import TRAIN_PRESETS, TrainOptions, steps_for

TRAINED_SHARE = 0.96  # of all steps, by the cells: the rest are for seams


def scene_of(folder: Path, photos: int, size: int) -> Path:
    """The demo's flight through our own first two stages, once for each folder."""
    from tasks.core.sfm.options import SfmOptions
    from tests.core.sfm.whole_stage import reconstruct

    out = folder / f"scene-{photos}-{size}"
    if not (out / "scene.json").exists():
        flight = folder / f"flight-{photos}"
        fly(flight, DemoOptions(photos=photos, width=960, height=720), ignore_progress)
        ingest(flight, folder / f"photos-{photos}", PhotosOptions(), ignore_progress)
        reconstruct(folder / f"photos-{photos}", out, SfmOptions(), size, ignore_progress)
    return out


def worker(arguments: argparse.Namespace) -> None:
    """Do one part in this process, and print what it took as JSON."""
    from tasks.core.training.cells.divide import divide
    from tasks.core.training.cells.merge import merge_cells, seams_of
    from tasks.core.training.cells.train_cell import train_cell
    from tasks.core.training.trainer import train

    scene, work = Scene.load(arguments.scene), arguments.work
    options = TrainOptions.model_validate_json(arguments.options)
    out = work / arguments.part
    out.mkdir(parents=True, exist_ok=True)
    plan, count = work / "plan", arguments.cells
    started = time.monotonic()
    told: dict[str, Any] = {}
    if arguments.part == "plan":
        told = {"cells": [cell.model_dump() for cell in divide(scene, out, options, count, ignore_progress).cells]}
    elif arguments.part == "whole":
        told = train(scene, out, options, lambda _: None).model_dump()
        told.update(vars(seams_of(scene, plan, options, out)))
    elif arguments.part == "merged":
        cells = [work / f"cell{number}" for number in range(count)]
        told = merge_cells(scene, plan, cells, out, options, lambda _: None).model_dump()
    else:
        number = int(arguments.part.removeprefix("cell"))
        told = train_cell(scene, plan, number, out, options, lambda _: None).model_dump()
    used = resource.getrusage(resource.RUSAGE_SELF)
    told |= {
        "seconds": time.monotonic() - started,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
    }
    print(json.dumps(told))


def run(
    part: str, scene: Path, work: Path, options: TrainOptions, cells: int, core: int | None = None
) -> dict[str, Any]:
    """Do one part in a process of its own, on one core if one is named."""
    process = start(part, scene, work, options, cells, core)
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{part} ended with status {process.returncode}")
    found: dict[str, Any] = json.loads(output)
    return found


def start(
    part: str, scene: Path, work: Path, options: TrainOptions, cells: int, core: int | None = None
) -> subprocess.Popen[str]:
    """Begin one part."""
    command = [sys.executable, "-m", "tests.benchmarks.cells", "--part", part, "--cells", str(cells)]
    command += ["--scene", str(scene), "--work", str(work), "--options", options.model_dump_json()]
    if core is None:
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    one = {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.PIPE, text=True, env=one)


def show(label: str, told: dict[str, Any]) -> None:
    """Print a line about a part."""
    quality = ""
    if told.get("psnr_db") is not None:
        quality = f"{told['psnr_db']:6.2f} dB, SSIM {told['ssim']:.3f}, detail {told['detail']:.3f}"
    if told.get("seam_psnr_db") is not None:
        quality += f", seams {told['seam_psnr_db']:.2f} dB, interior {told['interior_psnr_db']:.2f} dB"
    size = f"{told['num_gaussians']:8,} Gaussians, {told['steps']:6,} steps, " if "num_gaussians" in told else ""
    print(
        f"{label:22} {size}{told['cpu_seconds']:7.1f} CPU-s, {told['peak_bytes'] / 1e9:5.2f} GB  {quality}", flush=True
    )


def compare(scene: Path, work: Path, options: TrainOptions, cells: int, seed: int, *, workers: bool) -> None:
    """Train one part and cells with one seed, and print both."""
    chosen = options.model_copy(update={"random_seed": seed})
    plan = run("plan", scene, work, chosen, cells)
    print(f"seed {seed}: " + ", ".join(f"{c['views']} photos ({c['ring_views']} ring)" for c in plan["cells"]))
    whole = run("whole", scene, work, chosen, cells)
    show("one part", whole)
    of_cells = sum(cell["steps"] for cell in plan["cells"])
    fewer = round(options.steps * TRAINED_SHARE * options.steps / of_cells)
    for label, steps in (("as often", options.steps), ("same steps", fewer)):
        budget = chosen.model_copy(update={"steps": steps})
        of_budget = work / label.replace(" ", "-")
        run("plan", scene, of_budget, budget, cells)
        parts = [run(f"cell{number}", scene, of_budget, budget, cells) for number in range(cells)]
        for number, told in enumerate(parts):
            show(f"  {label}, cell {number}", told)
        merged = run("merged", scene, of_budget, budget, cells)
        merged["steps"] += sum(told["steps"] for told in parts)
        show(f"{label}, merged", merged)
        memory = max(told["peak_bytes"] for told in parts) / whole["peak_bytes"]
        print(
            f"{label}: {merged['psnr_db'] - whole['psnr_db']:+.2f} dB against one part, seams "
            f"{merged['seam_psnr_db'] - merged['interior_psnr_db']:+.2f} dB against the interior (one part: "
            f"{whole['seam_psnr_db'] - whole['interior_psnr_db']:+.2f}), a cell's peak memory {memory:.2f} of one part",
            flush=True,
        )
    if workers:
        time_workers(scene, work / "as-often", chosen, cells)


def time_workers(scene: Path, work: Path, options: TrainOptions, cells: int) -> None:
    """Train all cells with one worker of one core, then with two."""
    started = time.monotonic()
    for number in range(cells):
        run(f"cell{number}", scene, work, options, cells, core=0)
    alone = time.monotonic() - started
    started, waiting = time.monotonic(), list(range(cells))
    busy: dict[int, subprocess.Popen[str]] = {}
    while waiting or busy:
        for core in (0, 1):
            if core not in busy and waiting:
                busy[core] = start(f"cell{waiting.pop(0)}", scene, work, options, cells, core)
            if core in busy and busy[core].poll() is not None:
                busy.pop(core).communicate()
        time.sleep(0.05)
    both = time.monotonic() - started
    print(f"one worker of one core {alone:.0f} s, two {both:.0f} s: {alone / both:.2f} times as fast", flush=True)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200, help="of the demo's flight (default 200)")
    parser.add_argument("--scene", type=Path, help="a scene instead, as the sfm stage writes it")
    parser.add_argument("--size", type=int, default=480, help="long side of the photos in px (default 480)")
    parser.add_argument("--preset", choices=TRAIN_PRESETS, default="draft")
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--steps", type=int, help="instead of the preset's for so many photos")
    parser.add_argument("--seeds", type=int, default=1, help="how many random seeds (default 1)")
    parser.add_argument("--workers", action="store_true", help="also time one and two workers of one core each")
    parser.add_argument("--work", type=Path, help="folder that keeps scenes and results")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--options", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        worker(arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        scene = arguments.scene or scene_of(work, arguments.photos, arguments.size)
        photos = len(Scene.load(scene).cameras)
        preset = TRAIN_PRESETS[arguments.preset]
        options = preset.model_copy(
            update={
                "max_image_size": arguments.size,
                "steps": arguments.steps or steps_for(preset.steps, photos),
                "early_stop": False,  # so that both do the same number of steps
                "use_all_photos": False,  # so that seams are measured on a splat that has not seen the held-out photos
            }
        )
        print(f"{os.cpu_count()} cores, {photos} photos, {options.steps:,} steps at {arguments.size} px")
        for seed in range(arguments.seeds):
            compare(scene, work, options, arguments.cells, seed, workers=arguments.workers and seed == 0)


if __name__ == "__main__":
    main()
