"""A whole run, stage by stage, on the machines of its stages."""

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from tasks.core.estimate.machine import Machine
from tasks.core.estimate.stages import (
    Capture,
    compress_cost,
    expected_options,
    expected_training,
    photos_cost,
    publish_cost,
    sfm_cost,
    train_cost,
)
from tasks.core.measurements import CostSection, EstimateSection, SecondsSection
from tasks.core.options import ReconstructOptions
from tasks.core.stages import STAGES
from tasks.core.words import gigabytes, rough_duration

BETWEEN_STAGES_SECONDS = 3.0  # Prefect, hashing, and imports
BUSY_SHARE = 0.5  # of the cores, by the load average of the last minute
ONE_CORE = Machine(name="a core of the reference machine", cores=1.0)


class StageEstimate(BaseModel):
    """The expected time, memory and cost of one stage."""

    model_config = ConfigDict(frozen=True)

    stage: str
    machine: str
    seconds: float  # wall time on an otherwise idle machine
    peak_memory_bytes: int
    cost_usd: float | None  # null where no price of the machine is known


def estimate_stages(
    capture: Capture, options: ReconstructOptions, machines: Mapping[str, Machine]
) -> tuple[StageEstimate, ...]:
    """Estimate every stage of the run, with an empty workspace.

    machines: of each of STAGES. Raises OptionsError if the options cannot be met with these photos.
    """
    train = expected_options(capture, options, machines["train"])
    training = expected_training(capture, train)
    costs = {
        "sfm": sfm_cost(capture, options.sfm, train.max_image_size, machines["sfm"]),
        "train": train_cost(training, train, machines["train"]),
        "compress": compress_cost(training, options.compress, machines["compress"]),
        "publish": publish_cost(training, machines["publish"]),
    }
    if not capture.is_given_model:
        costs = {"photos": photos_cost(capture, machines["photos"]), **costs}
    return tuple(
        StageEstimate(
            stage=stage,
            machine=machines[stage].name,
            seconds=cost.seconds,
            peak_memory_bytes=round(cost.peak_memory_bytes),
            cost_usd=None if (price := machines[stage].hourly_usd) is None else price * cost.seconds / 3600,
        )
        for stage, cost in costs.items()
    )


def cpu_seconds(capture: Capture, options: ReconstructOptions) -> dict[str, float]:
    """Return seconds of one core of the reference machine by stage, without a GPU or a time budget.

    Useful to compare with the CPU seconds that processes have used.
    """
    unbounded = options.train.model_copy(update={"backend": "cpu", "time_budget_seconds": None})
    stages = estimate_stages(capture, options.model_copy(update={"train": unbounded}), dict.fromkeys(STAGES, ONE_CORE))
    return {stage.stage: stage.seconds for stage in stages}


def section_of(stages: tuple[StageEstimate, ...]) -> EstimateSection:
    """The part of the report: stages, the time between them, and the greatest memory."""
    costs = {stage.stage: stage.cost_usd for stage in stages}
    known = [cost for cost in costs.values() if cost is not None]
    return EstimateSection(
        seconds=SecondsSection(
            **{stage.stage: stage.seconds for stage in stages},
            total=BETWEEN_STAGES_SECONDS + sum(stage.seconds for stage in stages),
        ),
        cost_usd=CostSection(**costs, total=sum(known) if known else None),
        peak_memory_bytes=max(stage.peak_memory_bytes for stage in stages),
    )


def in_words(section: EstimateSection) -> str:
    """The estimate in one line: "about 2 min, 0.9 GB of memory; sfm 15 s, train 80 s, …"."""
    stages = [
        f"{stage} {rough_duration(seconds)}"
        for stage in STAGES
        if (seconds := getattr(section.seconds, stage)) is not None
    ]
    total = section.seconds.total or 0.0
    return (
        f"about {rough_duration(total)}, {gigabytes(section.peak_memory_bytes)} of memory at most; {', '.join(stages)}"
    )


def busy_note(cores: float) -> str | None:
    """Return a sentence for people if the machine is busy with other work, which estimates do not count; else None."""
    load = os.getloadavg()[0]
    if load < BUSY_SHARE * cores:
        return None
    return f"This machine is busy (load {load:.1f} on {cores:g} cores): expect it to take longer."
