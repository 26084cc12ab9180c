"""Time and peak memory of each stage, from the photos' headers, the options and constants fitted to runs.

Sizes, pairs and steps are computed by the functions that the stages themselves use. If finer features or more pairs
turn out to be necessary (docs/sfm.md, *The ladder*), the estimate does not include them.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.estimate.machine import Machine, Work
from tasks.core.gaussians import SH_COEFFICIENTS
from tasks.core.options import ReconstructOptions
from tasks.core.photos.headers import PhotoHeaders
from tasks.core.photoset import Photo
from tasks.core.report.preview import FRAME_WIDTH_PX, FRAMES
from tasks.core.sfm.given_model import read_given
from tasks.core.sfm.grey import features_image_size, scaled_size
from tasks.core.sfm.options import SfmOptions
from tasks.core.sfm.pairs import choose_pairs
from tasks.core.sog.options import CompressOptions
from tasks.core.training import schedule
from tasks.core.training.coverage import MOST_SHARE
from tasks.core.training.evaluate import FEW_VIEWS, JUDGED_VIEWS, PRUNE_HALVINGS
from tasks.core.training.options import TrainOptions

# CPU seconds of a core of the reference machine, fitted to runs of three or four photo sets: docs/estimate.md.
PHOTOS_SECONDS = 0.2
DECODE_SECONDS_PER_MEGAPIXEL = 0.005

WORKER_SECONDS = 2.6  # start of the sfm worker process and its libraries
GREY_SECONDS_PER_MEGAPIXEL = 0.01  # of the photo as it came in
FEATURE_SECONDS_PER_MEGAPIXEL = 0.4  # of the photo at the size for features; frames of a video need less
PAIR_SECONDS = 0.009
MAPPING_SECONDS_PER_PHOTO = 0.11
UNDISTORT_SECONDS_PER_MEGAPIXEL = (0.008, 0.26)  # read, written

STEP_SECONDS_PER_MEGAPIXEL = 0.18
STEP_SECONDS_PER_MILLION = 1.25  # Gaussians that the photo shows
DEPTH_SHARE = 0.2  # of a step, that the depths of sparse points take besides
FORWARD_SHARE = 0.33  # of a step, that a render takes
LOAD_SECONDS_PER_MEGAPIXEL = 0.1  # of a photo at training size: decoded, halved, compared
COMPLETE_SECONDS_PER_MEGAPIXEL = 0.6  # SSIM and corrected colours of a held-out view at the end
START_SECONDS = 2.5  # torch, and numba's compiled kernels
SERIAL_SHARE = 0.03  # of a step, in one thread: 123 CPU seconds took 63 s on two cores

COMPRESS_SECONDS = 0.5  # in the process that has trained; kernels and libraries take 2 s more in one of its own
ENCODE_SECONDS_PER_MILLION = 26.0  # Gaussians with harmonics of degree 3, on the first rung of the ladder of precisions
PUBLISH_SECONDS = 0.8  # pages, report and pictures in them
FRAME_SECONDS_PER_MEGAPIXEL = 0.2  # to encode the fly-around
FLY_AROUND_SHARE = 0.5  # of the Gaussians, that a frame of the fly-around shows

# A T4's step. gsplat's MCMC strategy takes 31, 44 and 55 ms a step on an A100 at 1, 2 and 3 million Gaussians and about
# 1.3 megapixels (docs.gsplat.studio, tests/eval: 15.42, 21.79 and 27.63 minutes for 30,000 steps): 12 ms for a million,
# and 19 ms otherwise, of which 8 are taken for the host's. The rest is scaled by memory bandwidth, 1555 to 320 GB/s.
T4_STEP_SECONDS = 0.008
T4_STEP_SECONDS_PER_MEGAPIXEL = 0.041
T4_STEP_SECONDS_PER_MILLION = 0.058
T4_START_SECONDS = 15.0

# Peak memory
BASE_BYTES = 310e6  # of a process with the flow's libraries
BYTES_PER_DECODED_PIXEL = 10
WORKER_BYTES = 100e6
BYTES_PER_FEATURE_PIXEL = 120  # in each thread: tasks/core/sfm/features.py
PROCESS_BYTES = 800e6  # torch, numba with its kernels, and the flow's libraries
T4_PROCESS_BYTES = 2.5e9  # CUDA's libraries in host memory; an estimate
BYTES_PER_GAUSSIAN = 1600  # tasks/core/training/memory.py
BYTES_PER_STEP_PIXEL = 150  # of the largest photo: image, gradients, SSIM's maps
BYTES_PER_PHOTO_PIXEL = 3 * 1.33  # with its smaller copies
RENDERING_BYTES = 650e6  # of a process that renders: numba with its kernels, scipy

# Assumptions about training before its scene is known
SLICES = 100  # of progress; within a slice every step is assumed to cost the same
POINTS_PER_PHOTO = 200  # sparse points: brighton 179, fox 154, demo 336, sceaux 379
USUAL_HALVINGS = 2  # how coarse training begins, where photos are large enough
PRUNED_SHARE = 0.1  # of the Gaussians, by the final prune: fox and demo 8 %, brighton 18 %


@dataclass(frozen=True)
class Capture:
    """Photos in capture order, as headers or the photos stage describe them."""

    photos: tuple[Photo, ...]
    given_points: int | None = None  # of a user's own model, which replaces structure from motion; None if not known
    is_given_model: bool = False

    @property
    def megapixels(self) -> float:
        """Of all photos."""
        return sum(photo.width * photo.height for photo in self.photos) / 1e6

    @classmethod
    def of_headers(cls, headers: PhotoHeaders) -> "Capture":
        """Return the capture of photos to reconstruct."""
        return cls(headers.photos)

    @classmethod
    def of_given_model(cls, place: Path) -> "Capture":
        """Return the capture of a user's own model. Raises FormatError, and InputError if it has no images."""
        given = read_given(place)
        photos = (Photo(name=each.name, width=each.size[0], height=each.size[1], sha256="") for each in given.images)
        return cls(tuple(photos), 0 if given.lacks_points else given.points, is_given_model=True)


@dataclass(frozen=True)
class Training:
    """The expected course of a training before its scene is known."""

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
    """The run's options of training on this machine, if every photo gets a camera."""
    on_gpu = options.train.backend == "cuda" or (machine.gpu and options.train.backend == "auto")
    return options.train_on("cuda" if on_gpu else "cpu", len(capture.photos))


def expected_training(capture: Capture, options: TrainOptions) -> Training:
    """Predict training from sizes and numbers of photos, with a camera for every photo and a usual number of points."""
    photos = len(capture.photos)
    held_out = -(-photos // options.hold_out_every) if options.hold_out_every else 0
    points = capture.given_points or POINTS_PER_PHOTO * photos
    sizes = [scaled_size(photo.width, photo.height, options.max_image_size) for photo in capture.photos]
    pixels = sum(width * height for width, height in sizes)
    views = max(photos - held_out, 1)
    overlap = min(schedule.USUAL_OVERLAP, max(views / 2, 1.0))
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


@dataclass(frozen=True)
class Cost:
    """Time and memory of a stage on an otherwise idle machine."""

    seconds: float  # wall time
    peak_memory_bytes: float


def photos_cost(capture: Capture, machine: Machine) -> Cost:
    """Cost of decoding every photo completely, one photo per core at a time."""
    work = Work(serial=PHOTOS_SECONDS, parallel=DECODE_SECONDS_PER_MEGAPIXEL * capture.megapixels)
    largest = max(photo.width * photo.height for photo in capture.photos)
    decoded = min(8, machine.cores, len(capture.photos)) * BYTES_PER_DECODED_PIXEL * largest
    return Cost(work.seconds_on(machine), BASE_BYTES + decoded)


def sfm_cost(capture: Capture, options: SfmOptions, image_size: int, machine: Machine) -> Cost:
    """Cost of features, matching and mapping, then of the undistorted images; for a given model only of the images.

    `image_size` is their longer side in px. Raises OptionsError if the photos lack what a matcher needs.
    """
    photos = capture.photos
    written = _megapixels([scaled_size(photo.width, photo.height, image_size) for photo in photos])
    read_seconds, write_seconds = UNDISTORT_SECONDS_PER_MEGAPIXEL
    undistorting = Work(parallel=read_seconds * capture.megapixels + write_seconds * written)
    start = Work(serial=WORKER_SECONDS)
    if capture.is_given_model and capture.given_points != 0:  # without points they are triangulated from the photos
        return Cost((start + undistorting).seconds_on(machine), WORKER_BYTES)
    long_side = features_image_size(photos, options.max_features_image_size)
    sizes = [scaled_size(photo.width, photo.height, long_side) for photo in photos]
    pairs = choose_pairs(photos, options).expected_pairs(len(photos))
    reading = GREY_SECONDS_PER_MEGAPIXEL * capture.megapixels + FEATURE_SECONDS_PER_MEGAPIXEL * _megapixels(sizes)
    matching, mapping = Work(parallel=PAIR_SECONDS * pairs), Work(serial=MAPPING_SECONDS_PER_PHOTO * len(photos))
    work = start + undistorting + Work(parallel=reading) + matching + mapping
    largest = max(width * height for width, height in sizes)
    features = min(machine.cores, len(photos)) * BYTES_PER_FEATURE_PIXEL * largest
    return Cost(work.seconds_on(machine), WORKER_BYTES + features)


def _megapixels(sizes: list[tuple[int, int]]) -> float:
    return sum(width * height / 1e6 for width, height in sizes)


def train_cost(training: Training, options: TrainOptions, machine: Machine) -> Cost:
    """Cost of all steps, or of the time budget if it is shorter, and of the work before, between and after steps."""
    on_gpu = machine.gpu and options.backend != "cpu"
    steps = Work()
    for share, megapixels, count in course(training):
        steps += step_work(megapixels, count, on_gpu) * (share * options.steps)
    stepping = steps.seconds_on(machine)
    if options.time_budget_seconds is not None:
        stepping = min(stepping, options.time_budget_seconds)
    seconds = stepping + around_the_steps(training, options, on_gpu).seconds_on(machine)
    pixels = 1e6 * training.megapixels
    count, most = training.views + training.held_out, options.max_photos_in_memory
    photos = BYTES_PER_PHOTO_PIXEL * pixels * (count if most is None else min(most, count))
    if on_gpu:  # whose own memory holds the Gaussians
        return Cost(seconds, T4_PROCESS_BYTES + photos)
    return Cost(seconds, PROCESS_BYTES + photos + BYTES_PER_GAUSSIAN * training.limit + BYTES_PER_STEP_PIXEL * pixels)


def course(training: Training) -> Iterator[tuple[float, float, float]]:
    """Yield share of the steps, and a photo's megapixels and Gaussians, for each slice of progress."""
    smallest_side = min(training.width, training.height)
    most_halvings = int(math.log2(max(smallest_side / schedule.SMALLEST_SIDE_PX, 1)))
    for slice_ in range(SLICES):
        progress = (slice_ + 0.5) / SLICES
        halvings = min(schedule.halvings_at(progress), min(USUAL_HALVINGS, most_halvings))
        count = schedule.count_at(progress, training.start, training.limit)
        yield 1 / SLICES, training.megapixels / 4**halvings, count * training.shown_share


def step_work(megapixels: float, count: float, on_gpu: bool) -> Work:
    """Work of one update, with `count` Gaussians in the photo; the cost of depths on a GPU is not known."""
    photo = _photo_step(megapixels, count, on_gpu)
    return photo if on_gpu else photo * (1 + DEPTH_SHARE)


def _photo_step(megapixels: float, count: float, on_gpu: bool) -> Work:
    """Work of the photo's part of an update. On a GPU, none of it is shared among the machine's cores."""
    if on_gpu:
        return Work(
            serial=T4_STEP_SECONDS
            + T4_STEP_SECONDS_PER_MEGAPIXEL * megapixels
            + T4_STEP_SECONDS_PER_MILLION * count / 1e6
        )
    seconds = STEP_SECONDS_PER_MEGAPIXEL * megapixels + STEP_SECONDS_PER_MILLION * count / 1e6
    return Work(serial=SERIAL_SHARE * seconds, parallel=(1 - SERIAL_SHARE) * seconds)


def _render(megapixels: float, count: float, on_gpu: bool = False) -> Work:
    """Work of rendering one picture that shows `count` Gaussians."""
    return _photo_step(megapixels, count, on_gpu) * FORWARD_SHARE


def around_the_steps(training: Training, options: TrainOptions, on_gpu: bool) -> Work:
    """Work of training without its steps: loading, evaluations, the final prune, the last measurement."""
    full, count = training.megapixels, training.limit * training.shown_share
    render = _render(full, count, on_gpu)
    evaluated = len(schedule.EVALUATE_AT) * min(training.held_out, schedule.CURVE_VIEWS)
    work = Work(serial=T4_START_SECONDS if on_gpu else START_SECONDS)
    work += Work(serial=LOAD_SECONDS_PER_MEGAPIXEL * full) * (training.views + training.held_out)
    work += render * (evaluated + training.held_out)
    work += Work(serial=COMPLETE_SECONDS_PER_MEGAPIXEL * full) * training.held_out
    if options.max_prune_loss_db > 0:
        judged = min(training.views, JUDGED_VIEWS) * (PRUNE_HALVINGS + 1)
        size = full if training.views <= FEW_VIEWS else full / 4
        work += step_work(size, count, on_gpu) * training.views + render * judged
    return work


def compress_cost(training: Training, options: CompressOptions, machine: Machine) -> Cost:
    """Cost of encoding at the first precision, and of two renders of every held-out view."""
    harmonics = SH_COEFFICIENTS[min(options.sh_degree, training.sh_degree)] / SH_COEFFICIENTS[-1]
    encoding = Work(parallel=ENCODE_SECONDS_PER_MILLION * training.kept / 1e6 * harmonics)
    renders = _render(training.megapixels, training.kept * training.shown_share) * training.held_out
    work = Work(serial=COMPRESS_SECONDS) + encoding + renders * 2
    return Cost(work.seconds_on(machine), RENDERING_BYTES + 1000 * training.kept)


def publish_cost(training: Training, machine: Machine) -> Cost:
    """Cost of page and report, and of the frames of the fly-around, in a process of its own."""
    frame = FRAME_WIDTH_PX**2 * training.height / training.width / 1e6
    frames = _render(frame, training.kept * FLY_AROUND_SHARE) * FRAMES
    work = Work(serial=PUBLISH_SECONDS + FRAME_SECONDS_PER_MEGAPIXEL * FRAMES * frame) + frames
    return Cost(work.seconds_on(machine), RENDERING_BYTES + 500 * training.kept)
