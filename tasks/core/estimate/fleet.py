"""A run on a fleet, simulated: structure from motion, whole or in blocks, then cells of training, on several instances.

The work of each job comes from the model of a run on one machine (`stages.py`). What that model does not have is
assumed here, each with a name. None of it has run on a fleet.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from tasks.core.estimate.machine import Machine, Work
from tasks.core.estimate.pool import Job, Pool, never_lost, run_jobs
from tasks.core.estimate.stages import (
    LOAD_SECONDS_PER_MEGAPIXEL,
    T4_START_SECONDS,
    Capture,
    Training,
    around_the_steps,
    compress_cost,
    course,
    expected_options,
    expected_training,
    photos_cost,
    publish_cost,
    sfm_cost,
    step_work,
)
from tasks.core.gaussians import floats_per_gaussian
from tasks.core.options import ReconstructOptions
from tasks.core.training import schedule
from tasks.core.training.cells.count import MARGIN_SHARE
from tasks.core.training.options import TrainOptions, cells_for

# Assumptions. Photos of a block of structure from motion, and how many more it shares with its neighbours.
PHOTOS_PER_BLOCK = 250
ONE_BLOCK_AT_MOST = 300
SHARED_SHARE = 0.2
ADJUST_SECONDS_PER_PHOTO = 0.05  # in one thread: blocks are joined, and all cameras adjusted; half of mapping's time
CELLS_A_PHOTO = 1.5  # that it shows a part of, on average; margins are the same share of pixels as of Gaussians
SEAM_PHOTOS = 0.5  # of the photos, that show a seam
# Transfer between an instance and the storage.
BYTES_PER_SECOND = 50e6
BYTES_PER_PHOTO_PIXEL = 0.4  # of a JPEG: brighton 0.40, fox and sceaux 0.18 and 0.19
STATE_COPIES = 3  # a checkpoint has two moments beside each parameter
SEEDS = 200


class Fleet(NamedTuple):
    """Prices and habits of the machines."""

    cpu: Machine  # a task of the cpu pool; hourly_usd is known, as for the others
    gpu: Machine  # an instance of the gpu pool
    run: Machine  # the run's own task, which waits for the others
    cpu_start_seconds: float
    gpu_start_seconds: float
    losses_per_hour: float  # of a gpu instance
    checkpoint_seconds: float


@dataclass(frozen=True)
class FleetWork:
    """All jobs of a run."""

    before: float  # seconds in the run's own task
    blocks: tuple[Job, ...]
    joining: Job  # of the blocks, and dividing into cells; in one task
    cells: tuple[Job, ...]
    merging: Job | None  # of the cells, on one gpu instance; None for one cell
    compressing: Job
    after: float  # seconds in the run's own task
    photo_pixels: int  # of a usual photo in training
    gaussians: int  # the most, in all cells together
    sh_degree: int


class Spread(NamedTuple):
    """A number over many simulated runs."""

    mean: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The mean, and the values below which a tenth and nine tenths of all are."""
        ranked = sorted(values)
        return cls(
            math.fsum(ranked) / len(ranked), ranked[int(0.1 * (len(ranked) - 1))], ranked[int(0.9 * (len(ranked) - 1))]
        )


class FleetEstimate(NamedTuple):
    """A run with at most so many instances in each pool."""

    instances: int
    seconds: Spread
    cost_usd: Spread
    losses: float  # mean number of lost instances


def blocks_for(photos: int) -> int:
    """The number of blocks of structure from motion, if each were a job of its own."""
    return 1 if photos <= ONE_BLOCK_AT_MOST else math.ceil(photos / PHOTOS_PER_BLOCK)


def fleet_work(capture: Capture, options: ReconstructOptions, fleet: Fleet, blocks: int = 1) -> FleetWork:
    """The jobs of a run with these photos. Raises OptionsError if the options cannot be met with them.

    `blocks` of structure from motion. Now it is one job, which maps parts of many photos in processes of its own.
    """
    photos = len(capture.photos)
    train = expected_options(capture, options, fleet.gpu)
    training = expected_training(capture, train)
    cells = train.cells or cells_for(photos)
    joining = ADJUST_SECONDS_PER_PHOTO * photos if blocks > 1 else 0.0
    dividing = LOAD_SECONDS_PER_MEGAPIXEL * training.megapixels * photos if cells > 1 else 0.0
    compressing = compress_cost(training, options.compress, fleet.cpu).seconds
    return FleetWork(
        before=photos_cost(capture, fleet.run).seconds,
        blocks=_blocks(capture, options, train, fleet.cpu, blocks),
        joining=Job(Work(serial=joining + dividing).seconds_on(fleet.cpu)),
        cells=_cells(training, train, cells, fleet.gpu),
        merging=_merging(training, train, cells, fleet.gpu) if cells > 1 else None,
        compressing=Job(compressing, before=_transfer(_gaussian_bytes(training.kept, train.sh_degree))),
        after=publish_cost(training, fleet.run).seconds,
        photo_pixels=training.width * training.height,
        gaussians=training.limit,
        sh_degree=train.sh_degree,
    )


def simulate(work: FleetWork, fleet: Fleet, instances: int, seeds: Sequence[int] = range(SEEDS)) -> FleetEstimate:
    """The run on at most `instances` instances of each pool, once with each seed for the losses."""
    runs = [_once(work, fleet, instances, Random(seed)) for seed in seeds]
    seconds, costs, losses = zip(*runs, strict=True)
    return FleetEstimate(instances, Spread.of(seconds), Spread.of(costs), sum(losses) / len(losses))


def _once(work: FleetWork, fleet: Fleet, instances: int, random: Random) -> tuple[float, float, int]:
    lifetime: Callable[[], float] = never_lost
    if fleet.losses_per_hour:

        def lifetime() -> float:
            return random.expovariate(fleet.losses_per_hour / 3600)

    cpus = Pool(instances, fleet.cpu_start_seconds)
    gpus = Pool(instances, fleet.gpu_start_seconds, fleet.checkpoint_seconds)
    on_cpu = [run_jobs(work.blocks, cpus), run_jobs([work.joining], cpus), run_jobs([work.compressing], cpus)]
    on_gpu = [run_jobs(work.cells, gpus, lifetime)]
    if work.merging is not None:  # on the instance that has ended its cell last
        on_gpu.append(run_jobs([work.merging], replace(gpus, start_seconds=0.0), lifetime))
    own = fleet.cpu_start_seconds + work.before + work.after
    seconds = own + sum(each.seconds for each in (*on_cpu, *on_gpu))
    paid = (
        (fleet.run, seconds),
        (fleet.cpu, sum(each.paid_seconds for each in on_cpu)),
        (fleet.gpu, sum(each.paid_seconds for each in on_gpu)),
    )
    cost = sum((machine.hourly_usd or 0.0) * each / 3600 for machine, each in paid)
    return seconds, cost, sum(each.losses for each in on_gpu)


def _blocks(
    capture: Capture, options: ReconstructOptions, train: TrainOptions, machine: Machine, count: int
) -> tuple[Job, ...]:
    """Features, matching, mapping and undistorted images of each block; all blocks are alike."""
    photos = capture
    if count > 1:
        share = (1 + SHARED_SHARE) / count
        photos = replace(capture, photos=capture.photos[: math.ceil(len(capture.photos) * share)])
    seconds = sfm_cost(photos, options.sfm, train.max_image_size, machine).seconds
    arrives = _transfer(BYTES_PER_PHOTO_PIXEL * 1e6 * photos.megapixels)
    leaves = _transfer(_image_bytes(expected_training(photos, train)))
    return (Job(seconds, arrives, leaves),) * count


def _cells(training: Training, options: TrainOptions, count: int, machine: Machine) -> tuple[Job, ...]:
    """Training of each cell on the parts of photos that show it and its margin; all cells are alike."""
    if count == 1:
        stepping = _stepping(training, options, options.steps, 1.0).seconds_on(machine)
        around = around_the_steps(training, options, on_gpu=True).seconds_on(machine)
        return (_on_gpu(stepping + around - T4_START_SECONDS, training, options, 1.0),)
    steps = (
        options.steps
        * (1 - schedule.SEAM_SHARE - schedule.JOINED_SHARE * options.use_all_photos)
        * CELLS_A_PHOTO
        / count
    )
    part = (1 + MARGIN_SHARE) / CELLS_A_PHOTO  # of a photo, that shows the cell
    stepping = _stepping(training, options, steps, part).seconds_on(machine)
    loading = LOAD_SECONDS_PER_MEGAPIXEL * training.megapixels * _photos(training) * CELLS_A_PHOTO / count
    return (_on_gpu(stepping + loading, training, options, (1 + MARGIN_SHARE) / count),) * count


def _merging(training: Training, options: TrainOptions, count: int, machine: Machine) -> Job:
    """Steps on photos at seams and with the held-out photos, then measurements and the prune of the whole."""
    steps = options.steps * _share_after_cells(options)
    read = replace(training, views=math.ceil(training.views * SEAM_PHOTOS))
    work = step_work(training.megapixels, training.limit * training.shown_share, True) * steps
    around = around_the_steps(read, options, on_gpu=True).seconds_on(machine)
    arrives = _transfer(_gaussian_bytes(training.limit * (1 + MARGIN_SHARE), options.sh_degree))
    job = _on_gpu(work.seconds_on(machine) + around - T4_START_SECONDS, read, options, 1.0)
    return replace(job, before=job.before + arrives)


def _share_after_cells(options: TrainOptions) -> float:
    """The share of all steps that is done when the cells have been put together."""
    return schedule.SEAM_SHARE + schedule.JOINED_SHARE * options.use_all_photos


def _stepping(training: Training, options: TrainOptions, steps: float, part: float) -> Work:
    """Work of so many steps, each on such a part of a photo."""
    work = Work()
    for share, megapixels, count in course(training):
        work += step_work(megapixels * part, count * training.shown_share * part, True) * (share * steps)
    budget = options.time_budget_seconds
    return work if budget is None else Work(serial=min(work.serial, budget * steps / options.steps))


def _on_gpu(seconds: float, training: Training, options: TrainOptions, share: float) -> Job:
    """A job on a gpu instance that needs such a share of the images and trains such a share of the Gaussians.

    Every attempt is taken to read a checkpoint, though the first one has none.
    """
    gaussians = _gaussian_bytes(training.limit * share, options.sh_degree)
    state = _transfer(STATE_COPIES * gaussians)
    return Job(seconds, T4_START_SECONDS + _transfer(_image_bytes(training) * share) + state, _transfer(gaussians))


def _photos(training: Training) -> int:
    return training.views + training.held_out


def _image_bytes(training: Training) -> float:
    """Bytes of the undistorted images."""
    return BYTES_PER_PHOTO_PIXEL * 1e6 * training.megapixels * _photos(training)


def _gaussian_bytes(count: float, sh_degree: int) -> float:
    return 4 * floats_per_gaussian(sh_degree) * count


def _transfer(count: float) -> float:
    """Seconds for so many bytes."""
    return count / BYTES_PER_SECOND
