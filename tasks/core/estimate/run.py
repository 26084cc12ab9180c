"""A whole run, stage by stage, on the machines that its stages run on."""

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from tasks.core.estimate.capture import Capture
from tasks.core.estimate.machine import Machine
from tasks.core.estimate.sfm import sfm_bytes, sfm_work
from tasks.core.estimate.stages import (
    BETWEEN_STAGES_SECONDS,
    compress_bytes,
    compress_work,
    photos_bytes,
    photos_work,
    publish_bytes,
    publish_work,
)
from tasks.core.estimate.train import expected_options, expected_training, train_bytes, train_seconds, train_work
from tasks.core.estimate.words import gigabytes, rough_duration
from tasks.core.measurements import CostSection, EstimateSection, SecondsSection
from tasks.core.options import ReconstructOptions
from tasks.core.stages import STAGES

BUSY_SHARE = 0.5  # of the cores, by the load average of the last minute


class StageEstimate(BaseModel):
    """What one stage is expected to take."""

    model_config = ConfigDict(frozen=True)

    stage: str
    machine: str
    seconds: float  # wall time, on a machine that does nothing else
    peak_memory_bytes: int
    cost_usd: float | None  # null where no price of the machine is known


def estimate_stages(
    capture: Capture, options: ReconstructOptions, machines: Mapping[str, Machine]
) -> tuple[StageEstimate, ...]:
    """Every stage that the run will have, with nothing in the workspace.

    machines: what each of STAGES runs on. Raises OptionsError when the options cannot be met with these photos.
    """
    train = expected_options(capture, options, machines["train"])
    training = expected_training(capture, train)
    seconds = {
        "sfm": sfm_work(capture, options.sfm, train.max_image_size).seconds_on(machines["sfm"]),
        "train": train_seconds(training, train, machines["train"]),
        "compress": compress_work(training, options.compress).seconds_on(machines["compress"]),
        "publish": publish_work(training).seconds_on(machines["publish"]),
    }
    memory = {
        "sfm": sfm_bytes(capture, options.sfm, machines["sfm"]),
        "train": train_bytes(training, train, machines["train"]),
        "compress": compress_bytes(training),
        "publish": publish_bytes(training),
    }
    if not capture.is_given_model:
        seconds = {"photos": photos_work(capture).seconds_on(machines["photos"]), **seconds}
        memory["photos"] = photos_bytes(capture, machines["photos"])
    return tuple(
        StageEstimate(
            stage=stage,
            machine=machines[stage].name,
            seconds=taken,
            peak_memory_bytes=round(memory[stage]),
            cost_usd=None if (price := machines[stage].hourly_usd) is None else price * taken / 3600,
        )
        for stage, taken in seconds.items()
    )


def cpu_seconds(capture: Capture, options: ReconstructOptions) -> dict[str, float]:
    """By stage, what it takes one core of the reference machine: for comparison with what processes have used."""
    train = options.train_on("cpu", len(capture.photos))
    training = expected_training(capture, train)
    work = {
        "photos": photos_work(capture),
        "sfm": sfm_work(capture, options.sfm, train.max_image_size),
        "train": train_work(training, train),
        "compress": compress_work(training, options.compress),
        "publish": publish_work(training),
    }
    return {stage: each.cpu_seconds for stage, each in work.items()}


def section_of(stages: tuple[StageEstimate, ...]) -> EstimateSection:
    """The part of the report: stages, what is between them, and the greatest memory."""
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
    """What to say when the machine has other things to do, which no estimate counts; None when it has not."""
    load = os.getloadavg()[0]
    if load < BUSY_SHARE * cores:
        return None
    return f"This machine is busy (load {load:.1f} on {cores:g} cores): expect it to take longer."
