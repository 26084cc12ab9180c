"""A run on a fleet: what more instances bring, and sums by hand."""

from dataclasses import replace

import pytest

from tasks.core.estimate.fleet import Fleet, FleetWork, Spread, fleet_work, simulate
from tasks.core.estimate.machine import Machine
from tasks.core.estimate.pool import Job
from tasks.core.options import ReconstructOptions, parse_options
from tests.core.estimate.test_run import capture

CPU = Machine(name="cpu", cores=4, hourly_usd=0.36)
GPU = Machine(name="gpu", cores=4, gpu=True, hourly_usd=0.72)
RUN = Machine(name="run", cores=2, hourly_usd=0.036)
FLEET = Fleet(CPU, GPU, RUN, cpu_start_seconds=60, gpu_start_seconds=500, losses_per_hour=0, checkpoint_seconds=60)
SEQUENTIAL = parse_options("standard", ["sfm.matcher=sequential"])

WORK = FleetWork(
    before=10,
    blocks=(Job(300),) * 4,
    joining=Job(100),
    cells=(Job(1000),) * 4,
    merging=Job(400),
    compressing=Job(50),
    after=20,
    photo_pixels=1,
    gaussians=1,
    sh_degree=3,
)


def test_one_instance_of_each_pool() -> None:
    found = simulate(WORK, FLEET, 1, range(3))
    cpu, gpu = (60 + 4 * 300) + (60 + 100) + (60 + 50), (500 + 4 * 1000) + 400
    seconds = 60 + 10 + 20 + cpu + gpu
    assert found.seconds == Spread(*[pytest.approx(seconds)] * 3)
    dollars = (0.36 * cpu + 0.72 * gpu + 0.036 * seconds) / 3600
    assert found.cost_usd == Spread(*[pytest.approx(dollars)] * 3)
    assert found.losses == 0


def test_four_of_each_are_quicker_and_pay_more_starts() -> None:
    found = simulate(WORK, FLEET, 4, [0])
    seconds = 60 + 10 + 20 + (60 + 300) + (60 + 100) + (60 + 50) + (500 + 1000) + 400
    assert found.seconds.mean == pytest.approx(seconds)
    cpu, gpu = 4 * 360 + 160 + 110, 4 * 1500 + 400
    assert found.cost_usd.mean == pytest.approx((0.36 * cpu + 0.72 * gpu + 0.036 * seconds) / 3600)
    assert simulate(WORK, FLEET, 16, [0])[1:] == found[1:], "there is no job for a fifth"


def test_losses_cost_time_and_money_and_depend_on_the_seed_alone() -> None:
    lossy = FLEET._replace(losses_per_hour=1.0)
    found = simulate(WORK, lossy, 4)
    calm = simulate(WORK, FLEET, 4)
    assert found == simulate(WORK, lossy, 4)
    # An instance's life is an hour on average: in the 1,500 s of a cell it is lost with probability 1 - exp(-0.417),
    # about 0.34, and the second one in 1,000 s or so. Four cells, and the merge of 400 s.
    assert found.losses == pytest.approx(4 * 0.42 + 0.11, rel=0.25)
    assert found.seconds.p10 < found.seconds.mean < found.seconds.p90
    assert calm.seconds.mean <= found.seconds.p10
    assert calm.cost_usd.mean < found.cost_usd.mean


def test_percentiles() -> None:
    assert Spread.of([5.0, *range(10), 100.0]) == Spread(pytest.approx(150 / 12), 1.0, 8.0)


def test_a_capture_of_one_part_is_the_run_on_one_machine() -> None:
    work = fleet_work(capture(200), SEQUENTIAL, FLEET)
    assert (len(work.blocks), len(work.cells), work.merging, work.joining.seconds) == (1, 1, None, 0)


def test_large_captures_are_divided() -> None:
    work = fleet_work(capture(1000), SEQUENTIAL, FLEET)
    assert (len(work.blocks), len(work.cells)) == (4, 4)
    assert work.merging is not None
    # All cells train the margins around them as well, and fewer steps: 88 % of them are theirs.
    whole = fleet_work(capture(1000), parse_options("standard", ["sfm.matcher=sequential", "train.cells=1"]), FLEET)
    share = sum(job.seconds for job in work.cells) / whole.cells[0].seconds
    assert 0.88 < share < 1.6


def test_the_number_of_cells_can_be_chosen() -> None:
    options = parse_options("standard", ["sfm.matcher=sequential", "train.cells=7"])
    assert len(fleet_work(capture(200), options, FLEET).cells) == 7


def test_a_given_model_needs_no_blocks() -> None:
    given = replace(capture(1000), is_given_model=True, given_points=100_000)
    work = fleet_work(given, ReconstructOptions(), FLEET)
    assert len(work.blocks) == 1  # the undistorted images alone
    assert work.joining.seconds < fleet_work(capture(1000), SEQUENTIAL, FLEET).joining.seconds
