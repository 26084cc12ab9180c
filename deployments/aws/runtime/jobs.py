"""Pool and task size of each deployment in an AWS account, the environment of its runs, and their cost.

US dollars an hour, Linux on x86, us-east-1, looked up in November 2026 in other people's publications, since no account
was available. So every cost is an estimate; AWS's own pages have current prices.

| price | from |
|---|---|
| Fargate, a vCPU, a GB, a GB of disk above 20 | https://www.vantage.sh/blog/fargate-pricing; https://www.wring.co/blog/aws-fargate-pricing-guide of March 2026 has the first two |
| Fargate spot | https://aws.amazon.com/fargate/pricing/: "up to a 70% discount", taken as 70 %, the cheapest it can be |
| g4dn on demand | price tables of several public repositories, which agree, as 0.526 and 0.752 |
| g4dn spot | moves all day: 0.16 and 0.23 in December 2021 (https://gist.github.com/mludvig/31bf845061aa9d56d5de04707518fe6c); 0.21 was written down from memory, of later years, and is kept as the dearer; the larger one in proportion |
"""  # noqa: E501 - a table's row

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.plan import ECS_CPU, PREFIX, GpuPool
from tasks.core.estimate.machine import Machine

PRICES_DATE = "November 2026"
PRICES_REGION = "us-east-1"

FARGATE_VCPU_USD, FARGATE_GB_USD, FARGATE_DISK_GB_USD = 0.04048, 0.004445, 0.000111
FARGATE_FREE_DISK_GB = 20
FARGATE_SPOT_SHARE = 0.3  # of the price on demand
ON_DEMAND_USD = {"g4dn.xlarge": 0.526, "g4dn.2xlarge": 0.752}
SPOT_USD = {"g4dn.xlarge": 0.21, "g4dn.2xlarge": 0.30}


def fargate_usd(cpu_units: int, memory_mib: int, disk_gb: int) -> float:
    """Return the price of a Fargate task for an hour."""
    disk = max(disk_gb - FARGATE_FREE_DISK_GB, 0) * FARGATE_DISK_GB_USD
    return cpu_units / 1024 * FARGATE_VCPU_USD + memory_mib / 1024 * FARGATE_GB_USD + disk


FOLDER = "/opt/spaceport"  # of this code in both images
EXECUTE = "python -m deployments.aws.runtime.unless_ended prefect flow-run execute"
ENGINE = "python -m deployments.aws.runtime.unless_ended prefect.engine"
GPU_INSTANCE = "g4dn.xlarge"  # training's size and price are for this type
GPU_INSTANCE_CORES = 4


class TaskSize(BaseModel):
    """Size of a Fargate task: CPU units (1024 a core), MiB, GiB of disk."""

    model_config = ConfigDict(frozen=True)

    cpu: int
    memory: int
    disk_gb: int

    @property
    def where(self) -> str:
        """For people."""
        return f"Fargate, {self.cpu // 1024} vCPU, {self.memory // 1024} GB"

    @property
    def hourly_usd(self) -> float:
        """Price of an hour."""
        return fargate_usd(self.cpu, self.memory, self.disk_gb)


SIZES = {
    "reconstruct": TaskSize(cpu=2048, memory=8192, disk_gb=60),  # checks the photos and publishes in its own process
    "photos": TaskSize(cpu=2048, memory=8192, disk_gb=60),
    "sfm": TaskSize(cpu=4096, memory=16384, disk_gb=100),
    "cells": TaskSize(cpu=4096, memory=16384, disk_gb=100),  # reads every photo once
    "compress": TaskSize(cpu=4096, memory=8192, disk_gb=60),
    "publish": TaskSize(cpu=2048, memory=8192, disk_gb=60),
}


def machines() -> dict[str, Machine]:
    """Return the machine of each stage in an account; photos and publish run in the run's own task."""
    jobs = {"photos": "reconstruct", "sfm": "sfm", "compress": "compress", "publish": "reconstruct"}
    found = {
        stage: Machine(name=size.where, cores=size.cpu / 1024, hourly_usd=size.hourly_usd)
        for stage, size in ((stage, SIZES[job]) for stage, job in jobs.items())
    }
    found["train"] = Machine(name=GPU_INSTANCE, cores=GPU_INSTANCE_CORES, gpu=True, hourly_usd=SPOT_USD[GPU_INSTANCE])
    return found


def account_environment(account: Infrastructure) -> dict[str, str]:
    """Return the environment of every run in the account, in any pool."""
    return {
        "PREFECT_API_URL": account.prefect_api_url,
        "PREFECT_HOME": "/scratch/prefect",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "SPACEPORT_HOME": "/scratch",
        "NUMBA_CACHE_DIR": "/scratch/numba",  # the image itself cannot be written to
        "AWS_DEFAULT_REGION": account.region,
        "SPACEPORT_METRICS": "emf",
    }


def ecs_environment(account: Infrastructure, gpu_pool: GpuPool) -> dict[str, str]:
    """Return the additional environment of runs that are ECS tasks."""
    again = {"train": {"capacity_provider": account.capacity_provider_again}} if gpu_pool == "ecs-gpu" else {}
    return {
        # SIGTERM ends a task when its spot instance is reclaimed or its service is updated. The run then returns to its
        # queue, and the next task continues from the checkpoint.
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
        "SPACEPORT_JOB_VARIABLES_AGAIN": json.dumps(again),
        "SPACEPORT_MACHINES": json.dumps({stage: each.model_dump() for stage, each in machines().items()}),
    }


def train_environment() -> dict[str, str]:
    """Return the environment of training, in either of its pools."""
    return {"SPACEPORT_HOURLY_COST_USD": str(SPOT_USD[GPU_INSTANCE])}


def job_variables(flow: str, gpu_pool: GpuPool) -> tuple[str, dict[str, Any]]:
    """Return the pool of a deployment, and its values of that pool's variables."""
    if flow in ("train", "cell"):
        return f"{PREFIX}{gpu_pool}", {}
    size = SIZES[flow]
    return ECS_CPU, {"stage": flow, "price": round(size.hourly_usd, 4), **size.model_dump()}
