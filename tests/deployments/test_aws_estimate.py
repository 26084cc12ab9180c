"""Price of a run in an account, added up by hand; and the machines of stages that runs there know of."""

import pytest

from deployments.aws.runtime.estimate import FARGATE_START_SECONDS, GPU_START_SECONDS, AwsStage, estimate_on_aws
from deployments.aws.runtime.jobs import (
    FARGATE_SPOT_SHARE,
    GPU_INSTANCE,
    ON_DEMAND_USD,
    SIZES,
    SPOT_USD,
    ecs_environment,
    fargate_usd,
    job_variables,
    machines,
)
from tasks.core.estimate.run import estimate_stages
from tasks.core.options import ReconstructOptions
from tasks.running.estimate import machines_of_run
from tests.core.estimate.test_run import capture
from tests.deployments.accounts import account


def by_stage(tasks: tuple[AwsStage, ...]) -> dict[str, AwsStage]:
    return {task.stage: task for task in tasks}


def test_every_task_is_paid_for_its_time_and_its_start() -> None:
    photos, options = capture(60), ReconstructOptions()
    seconds = {stage.stage: stage.seconds for stage in estimate_stages(photos, options, machines())}
    found = estimate_on_aws(photos, options)
    tasks = by_stage(found.stages)
    assert set(tasks) == {"sfm", "train", "compress", "run"}
    training = seconds["train"] + GPU_START_SECONDS
    assert tasks["train"].on_demand_usd == pytest.approx(ON_DEMAND_USD[GPU_INSTANCE] * training / 3600)
    assert tasks["train"].spot_usd == pytest.approx(SPOT_USD[GPU_INSTANCE] * training / 3600)
    assert tasks["sfm"].seconds == pytest.approx(seconds["sfm"] + FARGATE_START_SECONDS)
    sfm_price = 4 * 0.04048 + 16 * 0.004445 + (SIZES["sfm"].disk_gb - 20) * 0.000111
    assert tasks["sfm"].on_demand_usd == pytest.approx(sfm_price * tasks["sfm"].seconds / 3600)
    assert tasks["sfm"].spot_usd == pytest.approx(FARGATE_SPOT_SHARE * tasks["sfm"].on_demand_usd)
    # The run's own task waits for the others and is paid meanwhile.
    assert tasks["run"].seconds == found.seconds == pytest.approx(
        sum(tasks[stage].seconds for stage in ("sfm", "train", "compress"))
        + seconds["photos"] + seconds["publish"] + FARGATE_START_SECONDS
    )  # fmt: skip
    assert found.on_demand_usd == pytest.approx(sum(task.on_demand_usd for task in found.stages))
    assert found.spot_usd < found.on_demand_usd
    assert any("Nothing of this was measured on AWS" in note for note in found.notes)


def test_disk_is_free_up_to_twenty_gigabytes() -> None:
    assert fargate_usd(1024, 1024, 20) == fargate_usd(1024, 1024, 0)
    assert fargate_usd(1024, 1024, 30) > fargate_usd(1024, 1024, 20)


def test_a_run_in_an_account_expects_its_stages_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    _, variables = job_variables("reconstruct", "ecs-gpu")
    monkeypatch.setenv("SPACEPORT_MACHINES", ecs_environment(account(), "ecs-gpu")["SPACEPORT_MACHINES"])
    monkeypatch.setenv("SPACEPORT_HOURLY_COST_USD", str(variables["price"]))
    monkeypatch.setenv("SPACEPORT_DISPATCH", "sfm,train,compress")
    told = machines_of_run()
    assert told["train"].gpu
    assert told["train"].hourly_usd == SPOT_USD[GPU_INSTANCE]
    assert told["sfm"].cores == 4
    assert told["photos"].name == "this machine"
    assert told["photos"].hourly_usd == pytest.approx(SIZES["reconstruct"].hourly_usd, abs=1e-4)
