"""Time and price of a run in an AWS account, with the sizes of its deployments and the prices in `jobs.py`.

Nothing here has run on AWS. The times come from the model in tasks/core/estimate, on as many cores as each task has; a
vCPU is assumed to be as fast as a core of the measured machine. Training's time on a T4 is derived from figures that
others have published.
"""

from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.jobs import (
    FARGATE_SPOT_SHARE,
    GPU_INSTANCE,
    ON_DEMAND_USD,
    PRICES_DATE,
    PRICES_REGION,
    SIZES,
    SPOT_USD,
    machines,
)
from tasks.core.estimate.run import StageEstimate, estimate_stages
from tasks.core.estimate.stages import Capture
from tasks.core.options import ReconstructOptions

# From the start of a task until it computes, which is billed: pulling the image, and a GPU instance's boot before that.
# Not measured: common figures for cold starts with images of 1 and 4 GB.
FARGATE_START_SECONDS = 60.0
GPU_START_SECONDS = 8 * 60.0

NOTES = (
    "Nothing of this was measured on AWS. A vCPU is taken for as fast as a core of the machine that the figures come "
    "from, and the T4's step for what gsplat's published times on other cards suggest, which can be off by a factor of "
    "two. Start-up of tasks (1 minute) and of the GPU instance (8 minutes) is included; it is gone when one is warm.",
    "The stacks run CPU stages as Fargate on demand and training first on a spot instance. Storage, requests and what "
    "an account costs while idle come on top (deployments/aws/README.md).",
)


class AwsStage(BaseModel):
    """One task of a run."""

    model_config = ConfigDict(frozen=True)

    stage: str  # "run" is the task that checks the photos, waits for the other tasks, and publishes
    where: str
    seconds: float  # start-up included
    peak_memory_bytes: int
    on_demand_usd: float
    spot_usd: float


class AwsEstimate(BaseModel):
    """All tasks of a run, one after another."""

    model_config = ConfigDict(frozen=True)

    stages: tuple[AwsStage, ...]
    seconds: float
    on_demand_usd: float
    spot_usd: float
    region: str = PRICES_REGION
    prices_of: str = PRICES_DATE
    notes: tuple[str, ...] = NOTES


def estimate_on_aws(capture: Capture, options: ReconstructOptions) -> AwsEstimate:
    """Time and price of a run with nothing in the workspace."""
    stages = {stage.stage: stage for stage in estimate_stages(capture, options, machines())}
    tasks = [_task(stages[stage]) for stage in ("sfm", "train", "compress") if stage in stages]
    own = [stages[stage] for stage in ("photos", "publish") if stage in stages]
    seconds = FARGATE_START_SECONDS + sum(stage.seconds for stage in own) + sum(task.seconds for task in tasks)
    run = _fargate("run", "reconstruct", seconds, max(stage.peak_memory_bytes for stage in own))
    everything = (*tasks, run)
    return AwsEstimate(
        stages=everything,
        seconds=seconds,
        on_demand_usd=sum(task.on_demand_usd for task in everything),
        spot_usd=sum(task.spot_usd for task in everything),
    )


def _task(stage: StageEstimate) -> AwsStage:
    if stage.stage != "train":
        return _fargate(stage.stage, stage.stage, stage.seconds + FARGATE_START_SECONDS, stage.peak_memory_bytes)
    seconds = stage.seconds + GPU_START_SECONDS
    return AwsStage(
        stage=stage.stage,
        where=GPU_INSTANCE,
        seconds=seconds,
        peak_memory_bytes=stage.peak_memory_bytes,
        on_demand_usd=ON_DEMAND_USD[GPU_INSTANCE] * seconds / 3600,
        spot_usd=SPOT_USD[GPU_INSTANCE] * seconds / 3600,
    )


def _fargate(stage: str, job: str, seconds: float, peak_memory_bytes: int) -> AwsStage:
    size = SIZES[job]
    price = size.hourly_usd * seconds / 3600
    return AwsStage(
        stage=stage,
        where=size.where,
        seconds=seconds,
        peak_memory_bytes=peak_memory_bytes,
        on_demand_usd=price,
        spot_usd=price * FARGATE_SPOT_SHARE,
    )
