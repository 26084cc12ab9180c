"""Time and price of a run in an account that may start several instances in each pool, simulated.

Nothing here has run on AWS. Machines and prices are those of `jobs.py`, and start-up times those of `estimate.py`; the
simulation is in tasks/core/estimate/fleet.py, with what it assumes.
"""

import math

from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.estimate import FARGATE_START_SECONDS, GPU_START_SECONDS
from deployments.aws.runtime.jobs import GPU_INSTANCE, SIZES, machines
from tasks.core.estimate.fleet import SEEDS, Fleet, FleetWork, fleet_work, simulate
from tasks.core.estimate.machine import Machine
from tasks.core.estimate.stages import Capture
from tasks.core.options import ReconstructOptions
from tasks.core.training.memory import gpu_budget

INSTANCES = (1, 4, 16)
WORTH_A_FLEET = 150  # photos: `spaceport estimate` then prints this table
# AWS publishes shares of a month (Spot Instance Advisor), not losses an hour. One in 20 hours is a guess.
LOSSES_PER_HOUR = 0.05
T4_FREE_BYTES, T4_HOST_FREE_BYTES = 15.6e9, 12e9  # of a g4dn.xlarge, before training; not measured


class FleetRow(BaseModel):
    """The run with at most so many instances in each pool: means, and the 10th and 90th percentiles."""

    model_config = ConfigDict(frozen=True)

    instances: int
    seconds: float
    seconds_p10: float
    seconds_p90: float
    cost_usd: float
    cost_usd_p10: float
    cost_usd_p90: float
    losses: float  # of instances


class AwsFleet(BaseModel):
    """The same run on fleets of several sizes."""

    model_config = ConfigDict(frozen=True)

    blocks: int  # of structure from motion
    cells: int  # of training
    gpu: str
    losses_per_hour: float  # of each GPU instance, by assumption
    rows: tuple[FleetRow, ...]
    notes: tuple[str, ...]


def fleet(checkpoint_seconds: float, losses_per_hour: float) -> Fleet:
    """Return the machines of an account, with GPU instances on the spot market; 0 seconds: no checkpoints."""
    found = machines()
    size = SIZES["sfm"]
    return Fleet(
        cpu=Machine(name=size.where, cores=size.cpu / 1024, hourly_usd=size.hourly_usd),
        gpu=found["train"],
        run=found["publish"],
        cpu_start_seconds=FARGATE_START_SECONDS,
        gpu_start_seconds=GPU_START_SECONDS,
        losses_per_hour=losses_per_hour,
        checkpoint_seconds=checkpoint_seconds or math.inf,
    )


def estimate_on_fleet(
    capture: Capture, options: ReconstructOptions, losses_per_hour: float = LOSSES_PER_HOUR
) -> AwsFleet:
    """Simulate the run on fleets of INSTANCES. Raises OptionsError if the options cannot be met with these photos."""
    here = fleet(options.train.checkpoint_seconds, losses_per_hour)
    work = fleet_work(capture, options, here)
    return AwsFleet(
        blocks=len(work.blocks),
        cells=len(work.cells),
        gpu=GPU_INSTANCE,
        losses_per_hour=losses_per_hour,
        rows=tuple(_row(work, here, instances) for instances in INSTANCES),
        notes=_notes(work, losses_per_hour),
    )


def _row(work: FleetWork, here: Fleet, instances: int) -> FleetRow:
    found = simulate(work, here, instances)
    seconds, cost = found.seconds, found.cost_usd
    return FleetRow(
        instances=instances,
        seconds=seconds.mean,
        seconds_p10=seconds.p10,
        seconds_p90=seconds.p90,
        cost_usd=cost.mean,
        cost_usd_p10=cost.p10,
        cost_usd_p90=cost.p90,
        losses=found.losses,
    )


def _notes(work: FleetWork, losses_per_hour: float) -> tuple[str, ...]:
    simulated = (
        f"Simulated with {SEEDS} seeds for the losses of spot instances; nothing of this ran on AWS or on a fleet. By "
        f"assumption an instance is lost {losses_per_hour:g} times an hour, and its work continues from the last "
        "checkpoint on another one, 8 minutes later. Training at spot prices, everything else on demand. "
        "docs/estimate.md says what else is assumed."
    )
    budget = gpu_budget(T4_FREE_BYTES, T4_HOST_FREE_BYTES, [work.photo_pixels], work.gaussians, work.sh_degree)
    fits = budget.max_gaussians
    if len(work.cells) == 1 or fits >= work.gaussians:
        return (simulated,)
    return (
        simulated,
        f"A {GPU_INSTANCE} has memory for {fits:,} Gaussians where the cells are put together, and these may be "
        f"{work.gaussians:,}: lower train.max_gaussians, or expect fewer.",
    )
