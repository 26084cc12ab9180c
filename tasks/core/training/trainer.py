"""Train Gaussians to look like the photos of a scene."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np

from tasks.core.errors import TrainingDivergedError
from tasks.core.measurements import CurvePoint, TrainSection
from tasks.core.ply import write_ply
from tasks.core.render.backends import rasterizer_for, resolve_backend
from tasks.core.render.interface import Image, Rasterizer
from tasks.core.render.metrics import detail
from tasks.core.scene import Scene, SparsePoints
from tasks.core.training import schedule
from tasks.core.training.checkpoint import Checkpoints
from tasks.core.training.coverage import covered_pixels, finest_pixels, photos_showing, with_gaps_filled
from tasks.core.training.engine import SAMPLED_EVERY, Engine
from tasks.core.training.evaluate import (
    Evaluation,
    Quality,
    evaluate,
    evaluate_completely,
    finished_gaussians,
    mean_of,
    rows_worth_keeping,
)
from tasks.core.training.options import TrainOptions
from tasks.core.training.photo_file import Photo
from tasks.core.training.plan import Plan, plan_for
from tasks.core.training.refine import bound_shapes, refine, some_left_out
from tasks.core.training.state import TrainingState, identity_of
from tasks.core.training.views import View

logger = logging.getLogger(__name__)

PLY_FILE = "scene.ply"


@dataclass(frozen=True)
class TrainingStats:
    """How training is going, after each step."""

    step: int
    steps: int
    loss: float
    num_gaussians: int
    seconds: float  # wall time of training, without evaluation
    psnr_db: float | None  # mean over held-out views at the last evaluation
    detail: float | None  # of the first of them
    eta_seconds: float  # until the last step, at the present pace; 0 at the last step
    stopped_by: str | None = None  # why this step is the last one, as in TrainSection; None for earlier steps

    @property
    def share(self) -> float:
        """The finished share of the steps or of the time budget; 1 at the last step, also of a training ended early."""
        return self.seconds / (self.seconds + self.eta_seconds) if self.seconds else 0.0


@dataclass(frozen=True)
class EvaluatedView:
    """The first held-out view at an evaluation; it is the same view at every evaluation."""

    curve: tuple[CurvePoint, ...]  # up to this evaluation; each PSNR is the mean over all views of its evaluation
    name: str  # of the view's camera
    photo: Photo  # [H, W, 3]
    image: Image  # the render [H, W, 3], not clipped

    @property
    def point(self) -> CurvePoint:
        """The numbers of this evaluation."""
        return self.curve[-1]


def train(
    scene: Scene,
    out: Path,
    options: TrainOptions,
    on_step: Callable[[TrainingStats], None],
    on_evaluation: Callable[[EvaluatedView], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainSection:
    """Train Gaussians on a scene's photos and write them to `out/scene.ply`.

    Args:
        scene: cameras, undistorted photos and sparse points.
        out: an existing folder; photos that do not fit into memory are kept on its disk during training.
        options: see TrainOptions.
        on_step: called after every step.
        on_evaluation: called after every evaluation on held-out views; its time does not count as training.
        checkpoints: keeps the state, if given; its time does not count as training either.

    Returns:
        The measurements. Held-out numbers are None when no photo is held out.

    Raises:
        InputError: too few cameras or points.
        MissingPartError: the backend cannot run on this machine.
        DiskFullError: the disk has no room for photos that memory does not suffice for.
        TrainingDivergedError: the loss or a parameter is not finite.
    """
    plan = plan_for(scene, options, out)
    views, held_out = plan.views, plan.held_out

    def start() -> TrainingState:
        points = scene.points
        if options.fill_gaps:
            points = with_gaps_filled(points, views, scene.up, np.random.default_rng([options.random_seed, 1]))
        return started_at(points, scene.points, plan, options)

    belongs_to = identity_of(options, plan.engine, scene, views + held_out)
    trained = train_planned(plan, options, start, scene.points, belongs_to, on_step, on_evaluation, checkpoints)
    gaussians = finished_gaussians(trained.state.population.snapshot())
    write_ply(gaussians, out / PLY_FILE)
    return section_of(trained, plan, options, len(gaussians))


def started_at(points: SparsePoints, sparse: SparsePoints, plan: Plan, options: TrainOptions) -> TrainingState:
    """The state before the first step, with a Gaussian at each point; `sparse` are the points that hide others."""
    cameras = [view.cameras[0] for view in plan.views]
    shown_by = partial(photos_showing, cameras=cameras, points=sparse)
    finest = partial(finest_pixels, cameras=cameras)
    return TrainingState.at_start(
        points, options, plan.engine.device, len(plan.views), plan.max_gaussians, shown_by, finest
    )


@dataclass(frozen=True)
class Trained:
    """The end of a training."""

    state: TrainingState
    resumed_from_step: int | None


def train_planned(
    plan: Plan,
    options: TrainOptions,
    start: Callable[[], TrainingState],
    points: SparsePoints,
    belongs_to: str,
    on_step: Callable[[TrainingStats], None],
    on_evaluation: Callable[[EvaluatedView], None] | None,
    checkpoints: Checkpoints | None,
) -> Trained:
    """Do all steps of a planned training.

    Args:
        plan: the decisions.
        options: see TrainOptions; the plan decides the steps before the held-out photos join.
        start: returns the state before the first step, unless a checkpoint has a later one.
        points: surfaces, from which follows what is covered.
        belongs_to: a digest of all that decides the course of this training; see `identity_of`.
        on_step: called after every step.
        on_evaluation: as for `train`.
        checkpoints: as for `train`.

    Raises TrainingDivergedError.
    """
    rasterizer = rasterizer_for(resolve_backend(options.backend))
    state = _resumed(checkpoints, belongs_to, options, plan.engine)
    resumed_from_step = state.step if state else None
    if state is None:
        state = start()

    while not state.complete:
        loss = _step(state, plan, options)
        if _evaluation_is_due(state):
            bound_shapes(state.population)
            if plan.curve_views:
                with state.watch.paused():
                    measured = evaluate(state.population.snapshot(), plan.curve_views, rasterizer)
                    _note(state, state.watch.seconds(), plan.curve_views[0], measured, on_evaluation)
            if options.early_stop and schedule.is_flat(state.progress, state.losses[: state.evaluations]):
                state.end_early()
        if state.progress >= 1 and not state.measured:
            with state.watch.paused():
                _measure(state, plan, options, points, rasterizer, on_evaluation)
                if plan.joins:
                    _join(state, plan, options, rasterizer)
        on_step(_stats(state, plan, options, loss))
        if checkpoints is not None and not state.complete and checkpoints.due():
            with state.watch.paused():
                checkpoints.save(state.step, belongs_to, state.arrays())
    bound_shapes(state.population)
    return Trained(state, resumed_from_step)


def section_of(trained: Trained, plan: Plan, options: TrainOptions, count: int) -> TrainSection:
    """The measurements of a training that ended with `count` Gaussians."""
    state, first = trained.state, (plan.views + plan.held_out)[0].cameras[0]
    return TrainSection(
        backend=plan.engine.name,
        steps=state.step,
        resumed_from_step=trained.resumed_from_step,
        num_gaussians=count,
        image_width=first.width,
        image_height=first.height,
        **state.measured,
        held_out_joined_at_step=state.joined_at or None,
        stopped_by=_stopped_by(state, options),
        curve=tuple(state.curve),
        decisions=plan.decisions + plan.engine.decisions,
        degradations=plan.engine.degradations,
    )


def _measure(
    state: TrainingState,
    plan: Plan,
    options: TrainOptions,
    points: SparsePoints,
    rasterizer: Rasterizer,
    on_evaluation: Callable[[EvaluatedView], None] | None,
) -> None:
    """Prune Gaussians that hardly contribute to the training photos, and measure the splat on the held-out photos."""
    bound_shapes(state.population)
    rows = rows_worth_keeping(state.population.snapshot(), plan.views, rasterizer, options.max_prune_loss_db)
    state.population.keep(rows)
    held_out = plan.held_out
    others = plan.all_training or [view.cameras[0] for view in plan.views]
    covered = covered_pixels([view.cameras[0] for view in held_out], others, points)
    finished = finished_gaussians(state.population.snapshot())
    found = evaluate_completely(finished, held_out, rasterizer, covered)
    if held_out:
        _note(state, state.watch.seconds(), held_out[0], found, on_evaluation)
    state.measured = {
        **_means("", found.qualities),
        **_means("_covered", found.covered),
        "covered_share": found.covered_share,
        "color_corrected_psnr_db": float(np.mean(found.color_corrected_psnr_db)) if held_out else None,
        "eval_views": [view.cameras[0].name for view in held_out],
        "eval_psnr_db": found.psnr_db,
        "eval_detail": [None if math.isnan(quality.detail) else quality.detail for quality in found.qualities],
        **(plan.measures_also(finished) if plan.measures_also is not None else {}),
    }


def _join(state: TrainingState, plan: Plan, options: TrainOptions, rasterizer: Rasterizer) -> None:
    """Let the held-out photos join, with exposures measured by comparing them with the splat unless they are known."""
    state.join(len(plan.held_out), options.random_seed)
    if plan.joined_steps is not None:
        state.last_step = state.step + plan.joined_steps
    elif state.joined_at == plan.steps:  # exactly the wanted number, in spite of rounding
        state.last_step = options.steps
    if plan.log_gains is not None:
        state.exposures.log_gains[:] = plan.log_gains
    elif options.exposure_compensation:
        _expose_joined(state, plan, rasterizer)


def _expose_joined(state: TrainingState, plan: Plan, rasterizer: Rasterizer) -> None:
    """Measure the exposures of the held-out photos by comparing them with the splat."""
    gaussians = state.population.snapshot()
    for index, view in enumerate(plan.held_out, start=len(plan.views)):
        image = rasterizer.render(gaussians, view.cameras[0])
        every = slice(None, None, SAMPLED_EVERY)
        hidden = view.hidden_at(0)
        of_sample = None if hidden is None else hidden[every, every]
        state.exposures.update(index, view.photos[0][every, every], image[every, every], share=1.0, hidden=of_sample)


def _means(suffix: str, qualities: Sequence[Quality]) -> dict[str, float | None]:
    """Means over views by name of the report's field."""
    return {
        f"{field.name}{suffix}": mean_of(qualities, attrgetter(field.name)) for field in dataclasses.fields(Quality)
    }


def _stopped_by(state: TrainingState, options: TrainOptions) -> str:
    if state.ended_at:
        return "flat quality"
    return "schedule" if state.step >= options.steps else "time budget"


def _resumed(
    checkpoints: Checkpoints | None, belongs_to: str, options: TrainOptions, engine: Engine
) -> TrainingState | None:
    """The state that an earlier process of this training saved, if there is a usable one."""
    arrays = checkpoints.load(belongs_to) if checkpoints is not None else None
    if arrays is None:
        return None
    try:
        return TrainingState.restored(arrays, options, engine.device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # for example from another version of torch
        logger.warning("a checkpoint does not fit (%s: %s): training from the start", type(error).__name__, error)
        return None


def _step(state: TrainingState, plan: Plan, options: TrainOptions) -> float:
    """Do one optimiser update, and density control when it is due; returns the loss before the update."""
    progress = state.progress
    if state.joined_at:
        progress = schedule.JOINED_FROM + (1 - schedule.JOINED_FROM) * state.joined_share
    share = schedule.rate_share_for(_expected_steps(state, plan, options))
    of_depth = options.depth_weight * schedule.DEPTH_EVERY if state.step % schedule.DEPTH_EVERY == 0 else 0.0
    settings = schedule.settings_at(
        progress, options.sh_degree, plan.scene_radius, options.ssim_weight, share, of_depth
    )
    index = state.order.next()
    view = plan.all_views[index]
    level = plan.level_of(view, progress)
    photo = view.photos[level]
    plan.read_ahead(state.order, progress)
    gain = state.exposures.gain(index)
    with some_left_out(state.population, options.max_dropout, state.torch_generator):
        loss, sample = plan.engine.step(
            state.population,
            view.cameras[level],
            photo,
            gain,
            settings,
            plan.depths.of(index, level) if of_depth else None,
            view.hidden_at(level),
        )
    if options.exposure_compensation and plan.log_gains is None and progress >= schedule.EXPOSURE_FROM:
        every = slice(None, None, SAMPLED_EVERY)
        hidden = view.hidden_at(level)
        of_sample = None if hidden is None else hidden[every, every]
        state.exposures.update(index, photo[every, every], sample, hidden=of_sample)
    state.step += 1
    if not math.isfinite(loss):
        raise TrainingDivergedError(f"The loss is {loss} at step {state.step} of {options.steps}; {WAY_OUT}")
    if not state.joined_at:
        state.losses[state.evaluations, index] += loss, 1
    else:
        if state.watch.budget_share() >= 1:
            state.last_step = state.step
        return loss
    due = schedule.refinement_at(state.progress)
    if due > state.refinements:
        state.refinements = due
        wanted = schedule.count_at(state.progress, state.initial_count, state.population.capacity)
        refine(state.population, wanted, state.torch_generator)
        if due % schedule.SORTED_EVERY == 0:
            state.population.sort()
    share = max(state.step / plan.steps, state.watch.budget_share() / plan.share_before_joining)
    state.progress = plan.begins_at + (1 - plan.begins_at) * schedule.progress_at(share, state.ended_at)
    return loss


def _expected_steps(state: TrainingState, plan: Plan, options: TrainOptions) -> float:
    """The number of steps asked for, or that fit into the time budget at this pace if that is fewer."""
    if options.time_budget_seconds is None:
        return options.steps
    share = state.watch.budget_share() / plan.share_before_joining
    if share < schedule.PACE_KNOWN_FROM:
        return min(options.steps, schedule.RATES_MADE_FOR_STEPS)
    return min(options.steps, state.step / schedule.share_of_steps_at(min(share, 1.0)))


def _evaluation_is_due(state: TrainingState) -> bool:
    """Return whether progress has passed another of EVALUATE_AT: True once for each. The end is measured apart."""
    reached = sum(state.progress >= share for share in schedule.EVALUATE_AT)
    if state.progress >= 1 or reached <= state.evaluations:
        return False
    state.evaluations = reached
    return True


def _stats(state: TrainingState, plan: Plan, options: TrainOptions, loss: float) -> TrainingStats:
    seconds = state.watch.seconds()
    before = plan.share_before_joining
    share = before + (1 - before) * state.joined_share if state.joined_at else before * state.progress
    return TrainingStats(
        step=state.step,
        steps=options.steps,
        loss=loss,
        num_gaussians=state.population.count,
        seconds=seconds,
        psnr_db=state.curve[-1].psnr_db if state.curve else None,
        detail=state.curve[-1].detail if state.curve else None,
        eta_seconds=0.0 if state.complete else seconds * (1 - share) / share,
        stopped_by=_stopped_by(state, options) if state.complete else None,
    )


def _note(
    state: TrainingState,
    seconds: float,
    view: View,
    measured: Evaluation,
    on_evaluation: Callable[[EvaluatedView], None] | None,
) -> None:
    """Add an evaluation to the curve, and report its first view."""
    photo, image = view.photos[0], measured.first_image
    sharpness = math.nan if image is None else detail(image, photo / np.float32(255), view.shown)
    state.curve.append(
        CurvePoint(
            step=state.step,
            seconds=seconds,
            psnr_db=measured.mean_psnr_db,
            detail=None if math.isnan(sharpness) else sharpness,
        )
    )
    if on_evaluation is not None and image is not None:
        on_evaluation(EvaluatedView(tuple(state.curve), view.cameras[0].name, photo, image))


WAY_OUT = "the input may hold cameras or points that are far off. Try again with another train.random_seed."
