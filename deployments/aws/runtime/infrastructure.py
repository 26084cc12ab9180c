"""Contents of an AWS account, which its stacks (deployments/aws/stacks/services.py) write into a parameter."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core.errors import InputError

if TYPE_CHECKING:
    from botocore.config import Config

PARAMETER = "/spaceport/infrastructure"
VARIABLE = "SPACEPORT_INFRASTRUCTURE"  # names the parameter; if it is set, every command applies to AWS


class Infrastructure(BaseModel):
    """Names, addresses and ARNs; nothing secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    uploads_bucket: str
    results_bucket: str
    workspace: str  # s3://…
    results: str  # s3://…, where the listener's runs publish
    public_url: str | None = None  # public address of `results`
    queue_url: str
    dead_letters_url: str
    cluster: str
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    public_addresses: bool  # of Fargate tasks, which otherwise cannot reach the internet
    cpu_image: str
    gpu_image: str
    execution_role: str
    run_role: str
    train_role: str
    log_group: str
    capacity_provider: str  # of GPU instances, for first attempts
    capacity_provider_again: str  # for later ones
    ec2_group: str  # of instances of pool ec2-gpu
    ec2_group_on_demand: str | None = None  # used if the first group is of spot instances and none is available
    max_gpu_instances: int
    prefect_api_url: str
    prefect_secret: str
    prefect_secret_name: str  # PREFECT_API_KEY or PREFECT_API_AUTH_STRING


def infrastructure_named(name: str | None) -> Infrastructure | None:
    """Read the account that the setting SPACEPORT_INFRASTRUCTURE names; None if it is not set. Raises InputError."""
    return read_infrastructure(name) if name else None


def read_infrastructure(name: str = PARAMETER, config: "Config | None" = None) -> Infrastructure:
    """Read the parameter with whatever credentials boto3 finds, and with botocore's `config`. Raises InputError."""
    import boto3  # local, because the command line imports this module even if AWS is not used
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = boto3.client("ssm", config=config).get_parameter(Name=name)
        return Infrastructure.model_validate_json(answer["Parameter"]["Value"])
    except (BotoCoreError, ClientError) as error:
        raise InputError(
            f"The parameter {name} cannot be read ({error}): deploy deployments/aws into this account and region, or "
            "name others with AWS_PROFILE and AWS_DEFAULT_REGION."
        ) from error
    except ValidationError as error:
        raise InputError(
            f"The parameter {name} is of another version of Spaceport ({error.errors()[0]['loc'][0]}): deploy "
            "deployments/aws again."
        ) from error
