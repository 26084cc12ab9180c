"""Gain of each part of the training recipe: `make bench-train-ablation`.

Trains the fox, brighton and the demo at 480 px with the draft preset's Gaussians and 800 steps, first as it is, then
with one part at a time left out, and prints a Markdown table of held-out PSNR and SSIM, thousands of
Gaussians, and CPU seconds.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.progress import ignore_progress
from tasks.core.render.warmup import compile_kernels
from tasks.core.training import engine, refine, schedule
from tasks.core.training.options import TRAIN_PRESETS
from tasks.core.training.trainer import train
from tests.benchmarks.train import HOLD_OUT_EVERY, scene_of

STEPS, SIZE_PX = 800, 480

# name -> (options, constants of the recipe)
PARTS: dict[str, tuple[dict[str, Any], dict[tuple[Any, str], Any]]] = {
    "all of it": ({}, {}),
    "no coarse-to-fine": ({}, {(schedule, "SMALLER_UNTIL"): (0.0, 0.0, 0.0)}),
    "no growth": ({}, {(schedule, "REFINEMENTS"): 0}),
    "no relocation": ({}, {(refine, "DEAD_OPACITY"): 0.0}),
    "harmonics one after another": ({}, {(schedule, "SH_DEGREE_FROM"): (0.0, 0.12, 0.25, 0.4)}),
    "no harmonics": ({"sh_degree": 0}, {}),
    "no closing anneal": ({}, {(schedule, "ANNEAL_TO"): 1.0}),
    "no SSIM": ({"ssim_weight": 0.0}, {}),
    "half the pixels per Gaussian": ({"pixels_per_gaussian": 2.5}, {}),
    "rows in no order": ({}, {(schedule, "SORTED_EVERY"): schedule.REFINEMENTS + 1}),
    "no exposure compensation": ({"exposure_compensation": False}, {}),
    "no filled gaps": ({"fill_gaps": False}, {}),
    "no depths of sparse points": ({"depth_weight": 0.0}, {}),
    "harmonics everywhere": ({}, {(engine, "FLAT_COLORS_UNTIL"): -1}),
    "no dropout": ({"max_dropout": 0.0}, {}),
    "no final prune": ({"max_prune_loss_db": 0.0}, {}),
    "no early stop": ({"early_stop": False}, {}),
}


@contextmanager
def replaced(constants: dict[tuple[Any, str], Any]) -> Iterator[None]:
    """Constants of the recipe with other values."""
    before = {place: getattr(*place) for place in constants}
    try:
        for (module, name), value in constants.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def main() -> None:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["fox", "brighton", "demo"], choices=["fox", "brighton", "demo"])
    parser.add_argument("--scenes", type=Path, help="folder that keeps the scenes for the next call")
    arguments = parser.parse_args()
    compile_kernels(ignore_progress)
    draft = {
        **TRAIN_PRESETS["draft"].model_dump(),
        "steps": STEPS,
        "sh_degree": 3,
        "hold_out_every": HOLD_OUT_EVERY,
        "use_all_photos": False,
    }
    with tempfile.TemporaryDirectory() as temporary:
        scenes = {name: scene_of(name, arguments.scenes or Path(temporary), SIZE_PX) for name in arguments.sets}
        print("| | " + " | ".join(f"{name} (dB, SSIM, GMSD, detail, Gaussians, CPU-s)" for name in scenes) + " |")
        print("|---" * (1 + len(scenes)) + "|", flush=True)
        for part, (options, constants) in PARTS.items():
            cells = []
            for scene in scenes.values():
                started = time.process_time()
                with replaced(constants):
                    chosen = TRAIN_PRESETS["draft"].model_validate({**draft, **options})
                    section = train(scene, Path(temporary), chosen, lambda _: None)
                took = time.process_time() - started
                cells.append(
                    f"{section.psnr_db:.2f}, {section.ssim:.3f}, {section.gmsd:.3f}, {section.detail:.3f}, "
                    f"{section.num_gaussians / 1000:.1f}k, {took:.0f}"
                )
            print(f"| {part} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
