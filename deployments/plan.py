"""The plan of a Prefect server for Spaceport, which the person who sets it up chooses."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.aws.runtime.infrastructure import Infrastructure

REPOSITORY = Path(__file__).parents[1]  # contains flows/ and tasks/, for deploying and for workers
GpuPool = Literal["ecs-gpu", "ec2-gpu"]  # where training may run in an account: a pool's name without the prefix
GPU_POOLS: tuple[GpuPool, ...] = ("ecs-gpu", "ec2-gpu")
PREFIX = "spaceport-"  # of the names of our work pools, since a server may also have other people's
CPU, GPU = f"{PREFIX}cpu", f"{PREFIX}gpu"  # work pools of machines of one's own
ECS_CPU, ECS_GPU, EC2_GPU = f"{PREFIX}ecs-cpu", f"{PREFIX}ecs-gpu", f"{PREFIX}ec2-gpu"  # of an AWS account


class Plan(BaseModel):
    """A plan of a server. Applying the same plan again changes nothing."""

    model_config = ConfigDict(frozen=True)

    workspace: str  # root of stage outputs: an absolute folder, `s3://bucket/prefix` or `s3-bucket/<block>`
    pages_url: str | None = None  # of a web server that shows <workspace>/runs
    hourly_cost_usd: float | None = None  # price of the workers' machine
    dispatch: tuple[str, ...] | None = None  # stages in runs of their own; None leaves it to prefect.yaml
    cpu_slots: int = Field(2, ge=1)  # stages at once in pool `spaceport-cpu`
    gpu_slots: int = Field(1, ge=1)  # trainings at once
    notify: str | None = None  # URL that receives messages about runs that are done or have failed
    infrastructure: Infrastructure | None = None  # an AWS account, whose pools take the place of the two above
    gpu_pool: GpuPool = "ecs-gpu"  # where training runs in that account: its pool's name without the prefix

    @property
    def run_slots(self) -> int:
        """Runs at once: enough to keep every slot for a stage busy; other runs wait in the queue."""
        return self.cpu_slots + self.gpu_slots
