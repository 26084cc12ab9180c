"""What machines cost on AWS, for the costs in reports of runs there.

US dollars an hour in us-east-1, written down in November 2026 from memory: nobody has looked them up, and spot prices
move all day. So a report's cost is an estimate.
"""

FARGATE_VCPU_USD, FARGATE_GB_USD = 0.04048, 0.004445  # on demand; the first 20 GB of disk are free
SPOT_USD = {"g4dn.xlarge": 0.21}


def fargate_usd(cpu_units: int, memory_mib: int) -> float:
    """A Fargate task of that size."""
    return cpu_units / 1024 * FARGATE_VCPU_USD + memory_mib / 1024 * FARGATE_GB_USD
