"""Contents of a Prefect server for Spaceport, as chosen by the person who sets it up."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.aws.runtime.infrastructure import Infrastructure

REPOSITORY = Path(__file__).parents[1]  # holds flows/ and tasks/, for those who deploy and for their workers
ECS_CPU, ECS_GPU, EC2_GPU = "ecs-cpu", "ecs-gpu", "ec2-gpu"  # work pools in an AWS account
GpuPool = Literal["ecs-gpu", "ec2-gpu"]  # where training may run there
GPU_POOLS: tuple[GpuPool, ...] = ("ecs-gpu", "ec2-gpu")


class Plan(BaseModel):
    """The same plan applied twice changes nothing the second time."""

    model_config = ConfigDict(frozen=True)

    workspace: str  # root of stage outputs: an absolute folder, `s3://bucket/prefix` or `s3-bucket/<block>`
    pages_url: str | None = None  # of a web server that shows <workspace>/runs
    hourly_cost_usd: float | None = None  # price of the workers' machine
    dispatch: tuple[str, ...] | None = None  # stages in runs of their own; None leaves it to prefect.yaml
    cpu_slots: int = Field(2, ge=1)  # stages at once in pool `cpu`
    gpu_slots: int = Field(1, ge=1)  # trainings at once
    notify: str | None = None  # URL that hears of runs that are done or have failed
    infrastructure: Infrastructure | None = None  # an AWS account, whose pools take the place of `cpu` and `gpu`
    gpu_pool: GpuPool = "ecs-gpu"  # where training runs in that account

    @property
    def run_slots(self) -> int:
        """Runs at once: enough that every slot for a stage can be busy, the others wait in the queue."""
        return self.cpu_slots + self.gpu_slots
