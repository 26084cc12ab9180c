"""An AWS account as the stacks describe it, for tests."""

from deployments.aws.runtime.infrastructure import Infrastructure
from tests.support.aws_server import ACCOUNT, REGION

CLUSTER = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/spaceport"
ROLE = f"arn:aws:iam::{ACCOUNT}:role"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/spaceport"


def account(**changed: object) -> Infrastructure:
    """An account in which everything has its name from the stacks."""
    values: dict[str, object] = {
        "region": REGION,
        "uploads_bucket": "spaceport-uploads",
        "results_bucket": "spaceport-results",
        "workspace": "s3://spaceport-results/workspace",
        "results": "s3://spaceport-results/results",
        "public_url": None,
        "queue_url": "spaceport-uploads",
        "dead_letters_url": "spaceport-uploads-dead",
        "cluster": CLUSTER,
        "subnets": ("subnet-1", "subnet-2"),
        "security_groups": ("sg-1",),
        "public_addresses": True,
        "cpu_image": f"{REGISTRY}/cpu:0.1.0",
        "gpu_image": f"{REGISTRY}/gpu@sha256:{'0' * 64}",
        "execution_role": f"{ROLE}/execution",
        "run_role": f"{ROLE}/run",
        "train_role": f"{ROLE}/train",
        "log_group": "/spaceport/runs",
        "capacity_provider": "spot",
        "capacity_provider_again": "on-demand",
        "ec2_group": "spaceport-ec2-gpu",
        "ec2_group_on_demand": "spaceport-ec2-gpu-on-demand",
        "max_gpu_instances": 2,
        "prefect_api_url": "http://server.spaceport.internal:4200/api",
        "prefect_secret": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:prefect-AbCdEf",
        "prefect_secret_name": "PREFECT_API_AUTH_STRING",
    }
    return Infrastructure.model_validate({**values, **changed})
