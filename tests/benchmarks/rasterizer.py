"""Milliseconds per training step on the CPU, part by part: `python -m tests.benchmarks.rasterizer`.

Set-up: random Gaussians of degree 3 all over the image and 10 % beyond, depths 2 to 12, orientations and shapes random
(log-normal, 0.5 per axis), opacities sigmoid(N(0, 1.5)). Their size falls with their number as it does in training, so
that each pixel stays covered by a few dozen: 2.0 px (one standard deviation) for 20k at 480x320, 1.2 px for 100k at
480x320, 1.6 px for 200k at 960x640. Median and minimum of ROUNDS steps after one step of warm-up. CPU time is of all
threads together, and the number to look at on a machine that does other things too.

Then, how the cost of a step grows with the number of Gaussians at 960x640, their sizes falling so that coverage stays.
Last, what it is worth that rows lie in the order in which training keeps them, beside rows in no order, in turn.
"""

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from tasks.core.progress import ignore_progress
from tasks.core.render import cpu
from tasks.core.render.warmup import compile_kernels
from tasks.core.training import engine, schedule
from tasks.core.training.engine import CpuEngine
from tasks.core.training.population import Population
from tests.core.render.scenes import random_gaussians

CASES = ((480, 320, 20_000, 2.0), (480, 320, 100_000, 1.2), (960, 640, 200_000, 1.6))
SCALING = (20_000, 50_000, 100_000, 200_000, 500_000)
ROUNDS = 7
PARTS = {
    (cpu.projection, "project"): "forward",
    (cpu.projection, "compact"): "forward",
    (cpu.binning, "sort_by_depth"): "forward",
    (cpu.binning, "count_tiles"): "forward",
    (cpu.binning, "prefix_sums"): "forward",
    (cpu.binning, "fill_tiles"): "forward",
    (cpu.blending, "blend"): "forward",
    (engine, "l1_ssim"): "loss",
    (cpu.blending, "blend_backward"): "backward",
    (cpu.projection_backward, "project_backward"): "backward",
    (engine, "adam"): "optimiser",
}
NAMES = [name for _, name in PARTS]


def timed(kernel: Callable[..., Any], name: str, wall: dict[str, float], used: dict[str, float]) -> Callable[..., Any]:
    """The kernel, adding its wall and CPU seconds to the tables."""

    def call(*arguments: object) -> Any:
        wall_before, used_before = time.perf_counter(), time.process_time()
        result = kernel(*arguments)
        wall[name] = wall.get(name, 0) + time.perf_counter() - wall_before
        used[name] = used.get(name, 0) + time.process_time() - used_before
        return result

    return call


def measure(width: int, height: int, n: int, size_px: float, *, parts: bool = True, rows_sorted: bool = True) -> float:
    """Print one line of the table for each kernel and one for the step, if wanted; return the step's median CPU ms."""
    gaussians, camera = random_gaussians(n, width, height, size_px)
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    stepper, population = CpuEngine(), Population.of(gaussians, n, "cpu")
    if rows_sorted:
        population.sort()
    settings = schedule.settings_at(0.9, 3, scene_radius=0.0, ssim_weight=0.2)
    walls: list[dict[str, float]] = []
    useds: list[dict[str, float]] = []
    originals = {place: getattr(*place) for place in PARTS}
    wall: dict[str, float] = {}
    used: dict[str, float] = {}
    try:
        for (module, name), kernel in originals.items():
            setattr(module, name, timed(kernel, name, wall, used))
        for _ in range(ROUNDS + 1):
            wall.clear()
            used.clear()
            wall_before, used_before = time.perf_counter(), time.process_time()
            stepper.step(population, camera, photo, np.ones(3, np.float32), settings)
            wall["step"], used["step"] = time.perf_counter() - wall_before, time.process_time() - used_before
            walls.append(dict(wall))
            useds.append(dict(used))
    finally:
        for (module, name), kernel in originals.items():
            setattr(module, name, kernel)
    step_cpu_ms = 1000 * float(np.median([times["step"] for times in useds[1:]]))
    if not parts:
        return step_cpu_ms
    print(f"{width}x{height}, {n // 1000}k Gaussians of {size_px} px; ms: wall median/min, CPU median/min")
    groups = {part: [name for (_, name), p in PARTS.items() if p == part] for part in dict.fromkeys(PARTS.values())}
    rows = {name: [name] for name in NAMES} | {f"= {part}": names for part, names in groups.items()}
    for label, names in (rows | {"= step": ["step"]}).items():
        ms = [[1000 * sum(times[name] for name in names) for times in table[1:]] for table in (walls, useds)]
        print(f"  {label:18}" + "".join(f"{np.median(values):9.1f}/{min(values):.1f}" for values in ms))
    return step_cpu_ms


def main() -> None:
    """Print the table."""
    started = time.process_time()
    compile_kernels(ignore_progress)
    print(f"{numba.get_num_threads()} threads; kernels ready after {time.process_time() - started:.1f} CPU-s")
    for case in CASES:
        measure(*case)
    print("960x640, equal coverage; CPU ms a step, and how much it grew beside the number of Gaussians")
    first = None
    for n in SCALING:
        cost = measure(960, 640, n, 1.6 * (200_000 / n) ** 0.5, parts=False)
        first = first or cost
        print(f"  {n:7} Gaussians {cost:8.1f} ms   x{n / SCALING[0]:.1f} Gaussians, x{cost / first:.1f} cost")
    print("960x640, rows sorted beside rows in no order; CPU ms a step")
    for n in SCALING[-2:]:
        size_px = 1.6 * (200_000 / n) ** 0.5
        pairs = [
            [measure(960, 640, n, size_px, parts=False, rows_sorted=each) for each in (True, False)] for _ in range(3)
        ]
        in_order, in_none = np.median(pairs, axis=0)
        print(f"  {n:7} Gaussians {in_order:8.1f} and {in_none:.1f} ms: {in_order / in_none:.2f}")


if __name__ == "__main__":
    main()
