"""From a scene to Gaussians that look like its photos."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tasks.core.errors import InputError, TrainingDivergedError
from tasks.core.measurements import CurvePoint, TrainSection
from tasks.core.ply import write_ply
from tasks.core.render.backends import rasterizer_for, resolve_backend
from tasks.core.render.interface import Image
from tasks.core.scene import Camera, Scene
from tasks.core.training import schedule
from tasks.core.training.engine import Engine
from tasks.core.training.evaluate import Evaluation, evaluate
from tasks.core.training.finish import finished_gaussians
from tasks.core.training.initialise import initial_gaussians
from tasks.core.training.options import TrainOptions
from tasks.core.training.population import Population
from tasks.core.training.refine import refine
from tasks.core.training.stopwatch import Stopwatch
from tasks.core.training.views import Photo, View, endless_shuffle, evenly_chosen, load_view

PLY_FILE = "scene.ply"
MIN_CAMERAS = 3
EVALUATE_AT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # shares of progress; and at the end
CURVE_VIEWS = 12  # at most, evenly chosen; the end is measured on all held-out views


@dataclass(frozen=True)
class TrainingStats:
    """How training is going, after each step."""

    step: int
    steps: int
    loss: float
    num_gaussians: int
    seconds: float  # wall time of training, evaluation left out
    psnr_db: float | None  # mean over held-out views at the last evaluation
    eta_seconds: float  # until the last step, at the present pace


@dataclass(frozen=True)
class EvaluatedView:
    """What an evaluation looked like: the first held-out view, the same one at every evaluation."""

    point: CurvePoint  # its PSNR is the mean over all views of this evaluation
    name: str  # of the view's camera
    photo: Photo  # [H, W, 3]
    image: Image  # the render [H, W, 3], not clipped


def train(
    scene: Scene,
    out: Path,
    options: TrainOptions,
    on_step: Callable[[TrainingStats], None],
    on_evaluation: Callable[[EvaluatedView], None] | None = None,
) -> TrainSection:
    """Train Gaussians on a scene's photos and write them to `out/scene.ply`.

    Args:
        scene: cameras, undistorted photos and sparse points.
        out: an existing folder.
        options: see TrainOptions.
        on_step: called after every step.
        on_evaluation: called after every evaluation on held-out views; its time does not count as training.

    Returns:
        What was measured. Held-out numbers are None when no photo is held out.

    Raises:
        InputError: too few cameras or points.
        MissingPartError: the backend cannot run on this machine.
        TrainingDivergedError: the loss or a parameter is not finite.
    """
    rasterizer = rasterizer_for(resolve_backend(options.backend))
    training_cameras, held_out_cameras = split_cameras(scene, options.hold_out_every)
    views = [load_view(scene, camera, options.max_image_size) for camera in training_cameras]
    held_out = [load_view(scene, camera, options.max_image_size) for camera in held_out_cameras]
    curve_views = evenly_chosen(held_out, CURVE_VIEWS)
    engine = engine_for(options, views)
    limit = options.max_gaussians if engine.max_gaussians is None else engine.max_gaussians

    generator = np.random.default_rng(options.random_seed)
    torch_generator = torch.Generator(engine.device).manual_seed(options.random_seed)
    start = initial_gaussians(scene.points, options.sh_degree, limit, generator)
    population = Population.of(start, limit, engine.device)
    order = endless_shuffle(len(views), generator)

    watch = Stopwatch(options.time_budget_seconds)
    curve: list[CurvePoint] = []
    refinements, evaluations, step = 0, 0, 0
    progress = 0.0
    while progress < 1:
        settings = schedule.settings_at(progress, options.sh_degree, scene.extent / 2, options.ssim_weight)
        view = views[next(order)]
        level = schedule.halvings_at(progress, view.cameras[0].width, view.cameras[0].height)
        loss = engine.step(population, view.cameras[level], view.photos[level], settings)
        step += 1
        if not math.isfinite(loss):
            raise TrainingDivergedError(f"The loss is {loss} at step {step} of {options.steps}; {WAY_OUT}")

        if schedule.refinement_at(progress) > refinements:
            refinements = schedule.refinement_at(progress)
            refine(population, schedule.count_at(progress, len(start), limit), torch_generator)
        progress = max(step / options.steps, watch.budget_share())
        if curve_views and sum(progress >= share for share in EVALUATE_AT) > evaluations and progress < 1:
            evaluations = sum(progress >= share for share in EVALUATE_AT)
            with watch.paused():
                measured = evaluate(population.snapshot(), curve_views, rasterizer)
                curve.append(CurvePoint(step=step, seconds=watch.seconds(), psnr_db=measured.mean_psnr_db))
                _show(curve[-1], curve_views[0], measured, on_evaluation)
        on_step(
            TrainingStats(
                step=step,
                steps=options.steps,
                loss=loss,
                num_gaussians=population.count,
                seconds=watch.seconds(),
                psnr_db=curve[-1].psnr_db if curve else None,
                eta_seconds=watch.seconds() * (1 - progress) / progress,
            )
        )

    gaussians = finished_gaussians(population.snapshot())
    seconds = watch.seconds()
    write_ply(gaussians, out / PLY_FILE)
    final = evaluate(gaussians, held_out, rasterizer, with_ssim=True)
    if held_out:
        curve.append(CurvePoint(step=step, seconds=seconds, psnr_db=final.mean_psnr_db))
        _show(curve[-1], held_out[0], final, on_evaluation)
    first = (views + held_out)[0].cameras[0]
    return TrainSection(
        backend=engine.name,
        steps=step,
        num_gaussians=len(gaussians),
        image_width=first.width,
        image_height=first.height,
        psnr_db=final.mean_psnr_db if held_out else None,
        ssim=float(np.mean(final.ssim)) if final.ssim else None,
        eval_views=tuple(view.cameras[0].name for view in held_out),
        eval_psnr_db=final.psnr_db,
        stopped_by="schedule" if step >= options.steps else "time budget",
        curve=tuple(curve),
        decisions=engine.decisions,
        degradations=engine.degradations,
    )


def _show(
    point: CurvePoint, view: View, measured: Evaluation, on_evaluation: Callable[[EvaluatedView], None] | None
) -> None:
    if on_evaluation is not None and measured.first_image is not None:
        on_evaluation(EvaluatedView(point, view.cameras[0].name, view.photos[0], measured.first_image))


WAY_OUT = "the input may hold cameras or points that are far off. Try again with another train.random_seed."


def engine_for(options: TrainOptions, views: Sequence[View] = ()) -> Engine:
    """The engine of the backend that the options ask for; MissingPartError when it cannot run here.

    On a GPU it plans its memory for these views.
    """
    if resolve_backend(options.backend) == "cuda":
        from tasks.core.training.cuda_engine import cuda_engine

        return cuda_engine(options, views)
    from tasks.core.training.cpu_engine import CpuEngine

    return CpuEngine()


def split_cameras(scene: Scene, hold_out_every: int) -> tuple[tuple[Camera, ...], tuple[Camera, ...]]:
    """Cameras to train on and cameras held out; none is held out where that would leave fewer than MIN_CAMERAS.

    Raises InputError when the scene has fewer than MIN_CAMERAS cameras.
    """
    if len(scene.cameras) < MIN_CAMERAS:
        raise InputError(
            f"The scene has {len(scene.cameras)} registered photos; training needs at least {MIN_CAMERAS}. "
            "Add photos that overlap these."
        )
    if hold_out_every == 0:
        return scene.cameras, ()
    training, held_out = scene.split(hold_out_every)
    return (training, held_out) if len(training) >= MIN_CAMERAS else (scene.cameras, ())
