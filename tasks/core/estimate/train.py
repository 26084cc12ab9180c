"""The course that training is expected to take, and what that takes on a CPU or on a GPU."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.core.estimate.capture import Capture
from tasks.core.estimate.machine import Machine
from tasks.core.estimate.work import Work
from tasks.core.options import ReconstructOptions
from tasks.core.sfm.grey import scaled_size
from tasks.core.training import schedule
from tasks.core.training.coverage import MOST_SHARE
from tasks.core.training.options import TrainOptions
from tasks.core.training.prune import CONTRIBUTING_VIEWS, HALVINGS, JUDGED_VIEWS

SLICES = 100  # of progress, in each of which a step is taken to cost the same
POINTS_PER_PHOTO = 200  # sparse ones: brighton 179, fox 154, demo 336, sceaux 379
# Photos that show a typical place, where three quarters of each are in the next and in the next line's; but not more
# than half of them. Brighton's are 4 of 15, the fox's 23 of 43, the demo's 20 of 31.
USUAL_OVERLAP = 16.0
USUAL_HALVINGS = 2  # how coarse training begins, where photos are large enough
PRUNED_SHARE = 0.1  # of the Gaussians, by the final prune: fox and demo 8 %, brighton 18 %

# CPU seconds of a core of the reference machine, fitted to runs of three photo sets: docs/estimate.md.
STEP_SECONDS_PER_MEGAPIXEL = 0.18
STEP_SECONDS_PER_MILLION = 1.25  # Gaussians that the photo shows
DEPTH_SHARE = 0.2  # of a step, that the depths of sparse points take besides
FORWARD_SHARE = 0.33  # of a step, that a render takes
LOAD_SECONDS_PER_MEGAPIXEL = 0.1  # of a photo at training size: decoded, halved, compared
COMPLETE_SECONDS_PER_MEGAPIXEL = 0.6  # SSIM and corrected colours of a held-out view at the end
START_SECONDS = 2.5  # torch, and numba's compiled kernels
SERIAL_SHARE = 0.03  # of a step, in one thread: 123 CPU seconds took 63 s on two cores

# A T4's step. gsplat's MCMC strategy takes 31, 44 and 55 ms a step on an A100 at 1, 2 and 3 million Gaussians and about
# 1.3 megapixels (docs.gsplat.studio, tests/eval: 15.42, 21.79 and 27.63 minutes for 30,000 steps): 12 ms for a million,
# and 19 ms otherwise, of which 8 are taken for the host's. The rest is scaled by memory bandwidth, 1555 to 320 GB/s.
T4_STEP_SECONDS = 0.008
T4_STEP_SECONDS_PER_MEGAPIXEL = 0.041
T4_STEP_SECONDS_PER_MILLION = 0.058
T4_START_SECONDS = 15.0

PROCESS_BYTES = 800e6  # torch, numba with its kernels, and the flow's libraries
T4_PROCESS_BYTES = 2.5e9  # CUDA's libraries in host memory; an estimate
BYTES_PER_GAUSSIAN = 1600  # tasks/core/training/cpu_budget.py
BYTES_PER_STEP_PIXEL = 150  # of the largest photo: image, gradients, SSIM's maps
BYTES_PER_PHOTO_PIXEL = 3 * 1.33  # with its smaller copies


@dataclass(frozen=True)
class Training:
    """What is expected of a training before its scene is known."""

    views: int  # trained on
    held_out: int
    width: int  # px, of a photo at full training size
    height: int
    points: int  # sparse ones
    start: int  # Gaussians at the start, those that fill gaps included
    limit: int  # most Gaussians
    kept: int  # Gaussians after the final prune
    shown_share: float  # of the Gaussians, in one photo
    sh_degree: int

    @property
    def megapixels(self) -> float:
        """Of one photo at full size."""
        return self.width * self.height / 1e6


def expected_options(capture: Capture, options: ReconstructOptions, machine: Machine) -> TrainOptions:
    """What the run's options of training will be on this machine, if every photo gets a camera."""
    on_gpu = options.train.backend == "cuda" or (machine.gpu and options.train.backend == "auto")
    return options.train_on("cuda" if on_gpu else "cpu", len(capture.photos))


def expected_training(capture: Capture, options: TrainOptions) -> Training:
    """From sizes and numbers of photos: every photo is taken to register, and points to be as many as usual."""
    photos = len(capture.photos)
    held_out = -(-photos // options.hold_out_every) if options.hold_out_every else 0
    points = capture.given_points or POINTS_PER_PHOTO * photos
    sizes = [scaled_size(photo.width, photo.height, options.max_image_size) for photo in capture.photos]
    pixels = sum(width * height for width, height in sizes)
    views = max(photos - held_out, 1)
    overlap = min(USUAL_OVERLAP, max(views / 2, 1.0))
    limit = schedule.most_gaussians(
        pixels * views / photos, overlap, options.max_gaussians, options.pixels_per_gaussian
    )
    [((width, height), _)] = Counter(sizes).most_common(1)
    return Training(
        views=views,
        held_out=held_out,
        width=width,
        height=height,
        points=points,
        start=min(round(points * (1 + MOST_SHARE * options.fill_gaps)), limit),
        limit=limit,
        kept=round(limit * (1 - PRUNED_SHARE * (options.max_prune_loss_db > 0))),
        shown_share=overlap / views,
        sh_degree=options.sh_degree,
    )


def train_seconds(training: Training, options: TrainOptions, machine: Machine) -> float:
    """Wall time of the stage."""
    on_gpu = machine.gpu and options.backend != "cpu"
    stepping = _all_steps(training, options, on_gpu).seconds_on(machine)
    if options.time_budget_seconds is not None:
        stepping = min(stepping, options.time_budget_seconds)
    return stepping + _around_the_steps(training, options, on_gpu).seconds_on(machine)


def train_work(training: Training, options: TrainOptions) -> Work:
    """What the stage does on CPU cores when no time budget ends it."""
    return _all_steps(training, options, on_gpu=False) + _around_the_steps(training, options, on_gpu=False)


def _all_steps(training: Training, options: TrainOptions, on_gpu: bool) -> Work:
    """Every step that is expected to be taken."""
    work = Work()
    for share, pixels, count in _course(training):
        work += _step(pixels, count, on_gpu) * (share * options.steps)
    return work


def _course(training: Training) -> Iterator[tuple[float, float, float]]:
    """Share of the steps, and a photo's megapixels and Gaussians in each slice of progress."""
    smaller = min(USUAL_HALVINGS, _most_halvings(training))
    for slice_ in range(SLICES):
        progress = (slice_ + 0.5) / SLICES
        halvings = min(schedule.halvings_at(progress), smaller)
        count = schedule.count_at(progress, training.start, training.limit)
        yield 1 / SLICES, training.megapixels / 4**halvings, count * training.shown_share


def _most_halvings(training: Training) -> int:
    return int(math.log2(max(min(training.width, training.height) / schedule.SMALLEST_SIDE_PX, 1)))


def _step(megapixels: float, count: float, on_gpu: bool) -> Work:
    """One update, where a photo shows so many Gaussians; of a GPU's, what depths take is not known."""
    photo = _photo_step(megapixels, count, on_gpu)
    return photo if on_gpu else photo * (1 + DEPTH_SHARE)


def _photo_step(megapixels: float, count: float, on_gpu: bool) -> Work:
    """What the photo takes of an update. On a GPU nothing is left for a machine's cores to share."""
    if on_gpu:
        return Work(
            serial=T4_STEP_SECONDS
            + T4_STEP_SECONDS_PER_MEGAPIXEL * megapixels
            + T4_STEP_SECONDS_PER_MILLION * count / 1e6
        )
    return _shared(STEP_SECONDS_PER_MEGAPIXEL * megapixels + STEP_SECONDS_PER_MILLION * count / 1e6)


def render_work(megapixels: float, count: float) -> Work:
    """One picture on the CPU, which shows so many Gaussians."""
    return _photo_step(megapixels, count, on_gpu=False) * FORWARD_SHARE


def _around_the_steps(training: Training, options: TrainOptions, on_gpu: bool) -> Work:
    """What training does beside its steps: loading, evaluations on its way, the final prune, the last measurement."""
    full, count = training.megapixels, training.limit * training.shown_share
    render = _photo_step(full, count, on_gpu) * FORWARD_SHARE
    evaluated = len(schedule.EVALUATE_AT) * min(training.held_out, schedule.CURVE_VIEWS)
    work = Work(serial=T4_START_SECONDS if on_gpu else START_SECONDS)
    work += Work(serial=LOAD_SECONDS_PER_MEGAPIXEL * full) * (training.views + training.held_out)
    work += render * (evaluated + training.held_out)
    work += Work(serial=COMPLETE_SECONDS_PER_MEGAPIXEL * full) * training.held_out
    if options.max_prune_loss_db > 0:
        contributing = min(training.views, CONTRIBUTING_VIEWS)
        judged = min(training.views, JUDGED_VIEWS) * (HALVINGS + 1)
        work += _step(full, count, on_gpu) * contributing + render * judged
    return work


def _shared(seconds: float) -> Work:
    return Work(serial=SERIAL_SHARE * seconds, parallel=(1 - SERIAL_SHARE) * seconds)


def train_bytes(training: Training, options: TrainOptions, machine: Machine) -> float:
    """Peak memory of the process; on a GPU photos and Gaussians lie in the GPU's own as well."""
    pixels = 1e6 * training.megapixels
    photos = BYTES_PER_PHOTO_PIXEL * pixels * (training.views + training.held_out)
    if machine.gpu and options.backend != "cpu":
        return T4_PROCESS_BYTES + photos
    return PROCESS_BYTES + photos + BYTES_PER_GAUSSIAN * training.limit + BYTES_PER_STEP_PIXEL * pixels
