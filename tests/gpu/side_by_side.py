"""Our trainer beside gsplat's stock strategies on one scene: `python -m tests.gpu.side_by_side --out DIR [--help]`.

Same photos, same held-out views, same PSNR code, seconds of training alone after a warm-up. The stock side is a loop of
our own around gsplat's strategies (tests/gpu/stock.py), a baseline's equivalent. Not yet run on a GPU.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import get_args

import torch
from pydantic import ValidationError

from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.gaussians import Gaussians
from tasks.core.render.backends import rasterizer_for
from tasks.core.scene import SCENE_FILE, Scene
from tasks.core.training.coverage import covered_pixels
from tasks.core.training.evaluate import evaluate, evaluate_completely, mean_of
from tasks.core.training.options import TRAIN_PRESETS, TrainOptions
from tasks.core.training.plan import split_cameras
from tasks.core.training.trainer import TrainingStats, train
from tasks.core.training.views import load_view
from tests.gpu.comparison import OURS, Result, compared, table
from tests.gpu.flight_scene import flight_scene
from tests.gpu.stock import Kind, train_stock

STOCK: tuple[Kind, ...] = get_args(Kind)
CONTENDERS = (OURS, *STOCK)
WARM_UP_STEPS = 50
LONGER = 1.2  # a training of more steps than the last, by step; an estimate
# Ours on a GPU by default; 10,000 steps and a million Gaussians are what published fast trainers need.
OURS_OPTIONS = TRAIN_PRESETS["high"].model_copy(
    update={"steps": 10_000, "max_gaussians": 1_000_000, "pixels_per_gaussian": 0.0, "use_all_photos": False}
)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder that receives side_by_side.json")
    p.add_argument("--scene", type=Path, help="a Scene folder made elsewhere; else the demo flight is made here")
    p.add_argument("--photos", type=int, default=120, help="of the demo flight")
    p.add_argument("--size", type=int, default=1600, help="longer side of the photos in training, px")
    p.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    p.add_argument(
        "--steps", type=int, nargs="+", default=[30_000], help="of the stock strategies; several make as many rounds"
    )
    p.add_argument("--equal-steps", action="store_true", help="ours takes as many, and does not stop early")
    p.add_argument("--seconds", type=float, help="begin no training that would not end within so many from the start")
    p.add_argument("--ours", nargs="*", default=[], metavar="NAME=VALUE", help="options of our trainer")
    p.add_argument("--mcmc-cap", type=int, help="most Gaussians of MCMC; else as many as ours may have")
    p.add_argument("--memory-gb", type=float, help="use no more GPU memory than this, as on a smaller card")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--backend", choices=("cuda", "cpu"), default="cuda", help="cpu: ours alone, to try this program")
    return p


def options_of(arguments: argparse.Namespace) -> TrainOptions:
    """Of our trainer. Raises ValueError for what is no option."""
    changes: dict[str, object] = {}
    for text in arguments.ours:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--ours takes NAME=VALUE, not {text!r}")
        changes[name] = value
    base = OURS_OPTIONS.model_dump()
    base |= {"max_image_size": arguments.size, "backend": arguments.backend, "random_seed": arguments.seed}
    return TrainOptions.model_validate(base | changes)


def main(argv: Sequence[str] | None = None) -> None:
    p = parser()
    arguments = p.parse_args(argv)
    began = time.monotonic()
    if arguments.backend == "cpu" and arguments.contenders != [OURS]:
        p.error("gsplat's strategies need a GPU: with --backend cpu give --contenders ours")
    if min(arguments.steps) < 30:
        p.error(f"--steps {min(arguments.steps)} leaves no room for the stock schedules; give 30 or more")
    if len(arguments.steps) > 1 and not arguments.equal_steps:
        p.error("several --steps would have ours do the same each time; add --equal-steps")
    if arguments.scene is not None and not (arguments.scene / SCENE_FILE).is_file():
        p.error(f"--scene {arguments.scene} holds no {SCENE_FILE}")
    try:
        options = options_of(arguments)
    except (ValueError, ValidationError) as error:
        p.error(str(error))
    rasterizer_for(options.backend)  # says what is missing, before anything is made
    if arguments.memory_gb is not None:
        limit_memory(arguments.memory_gb)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.scene is None:
        flight = DemoOptions(photos=arguments.photos, width=arguments.size, height=arguments.size * 3 // 4)
        scene = flight_scene(arguments.out / "scene", flight)
    else:
        scene = Scene.load(arguments.scene)
    contest = Contest(scene, options, arguments.mcmc_cap or options.max_gaussians, arguments.seed)
    if not contest.held_out:
        p.error(f"{len(scene.cameras)} photos leave none to measure quality with; give more")
    if options.backend == "cuda":
        contest.warm_up(arguments.contenders)
    results: list[Result] = []
    for number, steps in enumerate(arguments.steps):
        for name in arguments.contenders:
            own = {"steps": steps, "early_stop": False} if arguments.equal_steps else {}
            contest.options = options.model_copy(update=own)
            left = None if arguments.seconds is None else began + arguments.seconds - time.monotonic()
            result = contest.result_of(name, steps, left)
            results.append(result.model_copy(update={"round": number}))
            write(arguments.out, results, options)  # so that what is measured is kept whatever comes next
            print(table(results[-1:]), flush=True)
    print(table(results))


def limit_memory(gigabytes: float) -> None:
    """As if the card were smaller: torch's allocator says no beyond. What the driver itself needs is not counted."""
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))


def write(out: Path, results: Sequence[Result], options: TrainOptions) -> None:
    described = {
        "ours_options": options.model_dump(),
        "results": [result.model_dump() for result in results],
        "ratios": [ratio.model_dump() for ratio in compared(results)],
    }
    (out / "side_by_side.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


class Contest:
    """One scene, the same views for all."""

    def __init__(self, scene: Scene, options: TrainOptions, mcmc_cap: int, seed: int) -> None:
        self.scene, self.options = scene, options
        self.mcmc_cap, self.seed = mcmc_cap, seed
        trained_on, held_out = split_cameras(scene, options.hold_out_every)
        self.views = [load_view(scene, camera, options.max_image_size) for camera in trained_on]
        self.held_out = [load_view(scene, camera, options.max_image_size) for camera in held_out]
        self.covered = covered_pixels(
            [view.cameras[0] for view in self.held_out], [view.cameras[0] for view in self.views], scene.points
        )
        self.rasterizer = rasterizer_for(options.backend)
        self._seconds_per_step: dict[str, float] = {}  # of each contender's last training, all that it took

    def warm_up(self, contenders: Sequence[str]) -> None:
        """Load kernels and libraries, so that the first contender does not pay for them."""
        for kind in STOCK:
            if kind in contenders:
                self._stock(kind, WARM_UP_STEPS)
        with tempfile.TemporaryDirectory() as folder:
            train(self.scene, Path(folder), self.options.model_copy(update={"steps": WARM_UP_STEPS}), _ignore)

    def result_of(self, name: str, stock_steps: int, seconds_left: float | None = None) -> Result:
        """Train and measure; running out of memory, or of time before the start, is a result too."""
        on_gpu = self.options.backend == "cuda"
        steps = self.options.steps if name == OURS else stock_steps
        # More Gaussians make later steps slower than those that were measured
        needed = LONGER * steps * self._seconds_per_step.get(name, 0.0)
        if seconds_left is not None and needed >= seconds_left:
            note = f"not begun: it would take about {needed:.0f} s, and {seconds_left:.0f} s were left"
            return Result(name=name, steps=steps, notes=(note,), begun=False)
        if on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.monotonic()
        try:
            result = self._ours() if name == OURS else self._stock(name, steps)
        except torch.OutOfMemoryError as error:
            result = Result(name=name, steps=steps, notes=(f"out of GPU memory: {str(error).splitlines()[0]}",))
        self._seconds_per_step[name] = (time.monotonic() - began) / steps
        return result.model_copy(update={"peak_gpu_bytes": torch.cuda.max_memory_allocated() if on_gpu else None})

    def _ours(self) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            section = train(self.scene, Path(folder), self.options, _ignore)
        return Result(
            name=OURS,
            steps=section.steps,
            psnr_db=section.psnr_db,
            ssim=section.ssim,
            detail=section.detail,
            gmsd=section.gmsd,
            seconds=section.curve[-1].seconds if section.curve else None,
            num_gaussians=section.num_gaussians,
            curve=section.curve,
            notes=(*section.decisions, *section.degradations),
        )

    def _stock(self, kind: Kind, steps: int) -> Result:
        from gsplat import rasterization

        trained = train_stock(
            self.scene, self.views, kind, steps, self.mcmc_cap, self.seed, self._psnr_db(), rasterization
        )
        final = evaluate_completely(trained.gaussians, self.held_out, self.rasterizer, self.covered)
        return Result(
            name=kind,
            steps=steps,
            psnr_db=final.mean_psnr_db,
            ssim=mean_of(final.qualities, attrgetter("ssim")),
            detail=mean_of(final.qualities, attrgetter("detail")),
            gmsd=mean_of(final.qualities, attrgetter("gmsd")),
            seconds=trained.seconds,
            num_gaussians=len(trained.gaussians),
            curve=trained.curve,
        )

    def _psnr_db(self) -> Callable[[Gaussians], float]:
        return lambda gaussians: evaluate(gaussians, self.held_out, self.rasterizer).mean_psnr_db


def _ignore(_: TrainingStats) -> None:
    pass


if __name__ == "__main__":
    main()
