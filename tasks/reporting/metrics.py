"""Measurements as lines that CloudWatch turns into metrics, where SPACEPORT_METRICS=emf asks for them.

The embedded metric format: a JSON line among a container's output, which its log driver takes to CloudWatch anyway.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel

from tasks.running.settings import settings_in_use

if TYPE_CHECKING:  # torch takes a second and 200 MB
    from tasks.core.usage import GpuUsage

NAMESPACE = "Spaceport"
GPU_SECONDS = 60.0  # between two looks at the GPU; CloudWatch keeps one value a minute
_UNITS = {
    "Seconds": "Seconds",
    "CostUsd": "None",
    "PeakMemoryBytes": "Bytes",
    "OutputBytes": "Bytes",
    "PsnrDb": "None",
    "Ssim": "None",
    "Gmsd": "None",
    "Detail": "None",
    "Gaussians": "Count",
    "SogBytes": "Bytes",
    "PsnrDropDb": "None",
    "GpuUtilisation": "Percent",
    "GpuMemoryBytes": "Bytes",
    "RunsCompleted": "Count",
    "RunsFailed": "Count",
}
# What a stage measured, by its field's name, that is worth a metric.
_MEASURED = {
    "psnr_db": "PsnrDb",
    "ssim": "Ssim",
    "gmsd": "Gmsd",
    "detail": "Detail",
    "num_gaussians": "Gaussians",
    "bytes": "SogBytes",
    "psnr_drop_db": "PsnrDropDb",
}


def emf_line(metrics: Mapping[str, float], stage: str | None, now: float) -> str:
    """One line with the metrics of one moment; of a stage where one is given.

    Args:
        metrics: values by name; the names are those of `_UNITS`.
        stage: becomes the dimension `Stage`. A run as a dimension would make every run a metric, and those are paid.
        now: seconds since the epoch.
    """
    declared = [{"Name": name, "Unit": _UNITS[name]} for name in metrics]
    dimensions = {} if stage is None else {"Stage": stage}
    directive = {"Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": declared}
    return json.dumps(
        {"_aws": {"Timestamp": int(1000 * now), "CloudWatchMetrics": [directive]}, **dimensions, **metrics},
        allow_nan=False,
    )


def tell_stage(
    stage: str,
    measured: BaseModel,
    *,
    seconds: float,
    cost_usd: float | None,
    peak_memory_bytes: int,
    output_bytes: int,
) -> None:
    """Write what a computed stage took and measured."""
    known = measured.model_dump(include=set(_MEASURED))
    _tell(
        {
            "Seconds": seconds,
            "CostUsd": cost_usd,
            "PeakMemoryBytes": peak_memory_bytes,
            "OutputBytes": output_bytes,
            **{_MEASURED[name]: value for name, value in known.items()},
        },
        stage,
    )


def tell_run(*, completed: bool) -> None:
    """Report that a run has ended. Only deployments/aws/runtime/watch.py does, since a process that died cannot."""
    _tell({"RunsCompleted": int(completed), "RunsFailed": int(not completed)}, None)


class GpuTeller:
    """Writes once a minute how training uses its GPU."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._told_at = -GPU_SECONDS

    def tell(self, usage: "GpuUsage | None") -> None:
        """Take the usage, as often as it is known; most calls write nothing."""
        now = time.monotonic()
        if usage is None or now - self._told_at < GPU_SECONDS:
            return
        self._told_at = now
        _tell({"GpuUtilisation": usage.utilisation_percent, "GpuMemoryBytes": usage.used_bytes}, self._stage)


def _tell(metrics: Mapping[str, float | None], stage: str | None) -> None:
    # JSON has no infinity, as the PSNR of two equal pictures is: such a value is left out.
    known = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
    if known and settings_in_use().metrics:
        # Not through logging, whose format would keep CloudWatch from knowing the line.
        sys.stdout.write(emf_line(known, stage, time.time()) + "\n")
        sys.stdout.flush()
