"""What machines cost on AWS: the table behind `spaceport estimate` and behind the costs in reports of runs on AWS.

Prices change; `PRICES_OF` says when these were written down, in US dollars, for us-east-1. On-demand prices are AWS's
list prices; spot prices move all day, and these are what was usual then.
"""

from pydantic import BaseModel, ConfigDict

PRICES_OF = "2026-11"
REGION = "us-east-1"


class Price(BaseModel):
    """Of one machine for an hour."""

    model_config = ConfigDict(frozen=True)

    on_demand_usd: float
    spot_usd: float


FARGATE_VCPU_USD, FARGATE_GB_USD = 0.04048, 0.004445  # an hour; the first 20 GB of disk are free
FARGATE_SPOT = 0.3  # of the price, as a rule
INSTANCES = {
    "g4dn.xlarge": Price(on_demand_usd=0.526, spot_usd=0.21),
    "g4dn.2xlarge": Price(on_demand_usd=0.752, spot_usd=0.30),
    "g5.xlarge": Price(on_demand_usd=1.006, spot_usd=0.42),
}


def fargate(cpu_units: int, memory_mib: int) -> Price:
    """A Fargate task of that size, for an hour."""
    price = cpu_units / 1024 * FARGATE_VCPU_USD + memory_mib / 1024 * FARGATE_GB_USD
    return Price(on_demand_usd=price, spot_usd=FARGATE_SPOT * price)
