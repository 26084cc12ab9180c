"""What machines cost on AWS, for estimates and for the costs in reports of runs there.

US dollars an hour, Linux on x86, us-east-1, looked up in November 2026 in what others have published, since no account
was at hand. So every cost is an estimate; AWS's own pages have today's prices.

| price | from |
|---|---|
| Fargate, a vCPU, a GB, a GB of disk above 20 | https://www.vantage.sh/blog/fargate-pricing; https://www.wring.co/blog/aws-fargate-pricing-guide of March 2026 has the first two |
| Fargate spot | https://aws.amazon.com/fargate/pricing/: "up to a 70% discount", taken as 70 %, the cheapest it can be |
| g4dn on demand | price tables of several public repositories, which agree, as 0.526 and 0.752 |
| g4dn spot | moves all day: 0.16 and 0.23 in December 2021 (https://gist.github.com/mludvig/31bf845061aa9d56d5de04707518fe6c); 0.21 was written down from memory, of later years, and is kept as the dearer; the larger one in proportion |
"""  # noqa: E501 - a table's row

PRICES_DATE = "November 2026"
PRICES_REGION = "us-east-1"

FARGATE_VCPU_USD, FARGATE_GB_USD, FARGATE_DISK_GB_USD = 0.04048, 0.004445, 0.000111
FARGATE_FREE_DISK_GB = 20
FARGATE_SPOT_SHARE = 0.3  # of the price on demand
ON_DEMAND_USD = {"g4dn.xlarge": 0.526, "g4dn.2xlarge": 0.752}
SPOT_USD = {"g4dn.xlarge": 0.21, "g4dn.2xlarge": 0.30}


def fargate_usd(cpu_units: int, memory_mib: int, disk_gb: int) -> float:
    """A Fargate task of that size."""
    disk = max(disk_gb - FARGATE_FREE_DISK_GB, 0) * FARGATE_DISK_GB_USD
    return cpu_units / 1024 * FARGATE_VCPU_USD + memory_mib / 1024 * FARGATE_GB_USD + disk
