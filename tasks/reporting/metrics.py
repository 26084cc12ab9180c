"""Measurements as log lines that CloudWatch turns into metrics, if SPACEPORT_METRICS=emf asks for them.

The embedded metric format is a JSON line in a container's output, which the log driver sends to CloudWatch anyway.
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
# Measured fields that become metrics.
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
    """Return one line with the metrics of one moment.

    Args:
        metrics: values by name; the names are those of `_UNITS`.
        stage: becomes the dimension `Stage`; None for metrics of a whole run. The run is no dimension, because every
            run would then add metrics of its own, and AWS charges for each.
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
    """Write the time, the cost and the measurements of a computed stage."""
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
    """Writes training's GPU usage once a minute."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._told_at = -GPU_SECONDS

    def tell(self, usage: "GpuUsage | None") -> None:
        """Receive the usage as often as it is measured; most calls write nothing."""
        now = time.monotonic()
        if usage is None or now - self._told_at < GPU_SECONDS:
            return
        self._told_at = now
        _tell({"GpuUtilisation": usage.utilisation_percent, "GpuMemoryBytes": usage.used_bytes}, self._stage)


def _tell(metrics: Mapping[str, float | None], stage: str | None) -> None:
    # JSON has no infinity, which is the PSNR of two equal pictures. Such values are left out.
    known = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
    if known and settings_in_use().metrics:
        # Not through logging: CloudWatch would not recognise a line in the log's format.
        sys.stdout.write(emf_line(known, stage, time.time()) + "\n")
        sys.stdout.flush()
