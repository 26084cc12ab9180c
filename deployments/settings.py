"""Settings for setting up a Prefect server and for an AWS account's services: a run's variables and some more."""

from typing import Annotated

from pydantic import Field

from deployments.plan import GPU_POOLS, GpuPool
from tasks.running.settings import Settings, from_text, one_of, whole_number


class DeploymentSettings(Settings):
    """Settings of `python -m deployments.apply`, for which `spaceport up` has options, and of an account's services."""

    infrastructure: str | None = Field(
        None, description="The parameter that describes an AWS account; where it is set, everything is meant for AWS."
    )
    cpu_slots: Annotated[int, from_text(whole_number)] = Field(2, description="Stages at once in pool `spaceport-cpu`.")
    gpu_slots: Annotated[int, from_text(whole_number)] = Field(1, description="Trainings at once.")
    notify: str | None = Field(None, description="URL that hears of runs that are done or have failed.")
    gpu_pool: Annotated[GpuPool, from_text(one_of(*GPU_POOLS))] = Field(
        "ecs-gpu", description="The pool of an AWS account in which training runs: `ecs-gpu` or `ec2-gpu`."
    )
    upload_limits: str = Field(
        "{}", description="JSON: the most that uploads may ask for (`Limits` in `deployments/listener/uploads.py`)."
    )
