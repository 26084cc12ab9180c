"""Choices at deployment: `-c name=value` on the command line, or `context` in cdk.json."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from deployments.listener.uploads import Limits
from tasks.core.errors import OptionsError
from tasks.running.settings import DEFAULT_KEEP_DAYS, MOST_KEEP_DAYS

# A message is in the queue for up to 14 days. If it is delivered again, its run must still be known to the server.
LEAST_KEEP_DAYS = 15
DIGEST = r"^sha256:[0-9a-f]{64}$"


class AwsOptions(BaseModel):
    """The defaults are the cheapest account that works: about 67 $ a month while nothing is computed (README.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_tag: str = Field("0.1.0", pattern=r"^[A-Za-z0-9_.-]{1,128}$")  # of both images
    cpu_digest: str | None = Field(None, pattern=DIGEST)  # instead of the tag
    gpu_digest: str | None = Field(None, pattern=DIGEST)
    private: bool = False  # tasks and instances in subnets behind a NAT gateway (33 $ a month and 0.045 $ a GB)
    prefect_api_url: str | None = None  # of an existing server, such as Prefect Cloud; if left out, one is deployed
    prefect_api_key_secret: str | None = None  # ARN of a Secrets Manager secret that holds that server's API key
    gpu_instance_types: tuple[str, ...] = Field(("g4dn.xlarge", "g5.xlarge", "g4dn.2xlarge"), min_length=1)
    max_gpu_instances: int = Field(2, ge=1, le=100)  # of each group: spot and on demand, of pools ecs-gpu and ec2-gpu
    spot: bool = True  # first attempts on spot instances, later ones on demand
    email: str | None = Field(None, pattern=r"^[^@\s]+@[^@\s]+$")  # receives alarms and budget notifications
    monthly_budget_usd: float = Field(100, gt=0)
    upload_limits: str = "{}"  # JSON: limits of READY.json (deployments/listener/uploads.py)
    keep_days: int = Field(DEFAULT_KEEP_DAYS, ge=LEAST_KEEP_DAYS, le=MOST_KEEP_DAYS)  # of ended runs in Prefect
    public_results: bool = False  # results are public to those who know their address, through CloudFront

    @field_validator("gpu_instance_types", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("upload_limits")
    @classmethod
    def _limits(cls, value: str) -> str:
        Limits.from_json(value, "-c upload_limits")
        return value

    @classmethod
    def from_context(cls, value_of: Callable[[str], object]) -> "AwsOptions":
        """Read the options from CDK's context. Raises OptionsError with the first error."""
        given = {name: value_of(name) for name in cls.model_fields}
        try:
            options = cls.model_validate({name: value for name, value in given.items() if value not in (None, "")})
        except ValidationError as error:
            first = error.errors()[0]
            raise OptionsError(f"-c {first['loc'][0]}={first['input']}: {first['msg']}.") from error
        if (options.prefect_api_url is None) != (options.prefect_api_key_secret is None):
            raise OptionsError("prefect_api_url and prefect_api_key_secret belong together: give both or neither.")
        return options
