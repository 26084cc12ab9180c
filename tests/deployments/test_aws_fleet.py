"""The fleet of an account: its machines and prices, and what its notes say."""

from math import inf

import pytest

from deployments.aws.runtime.estimate import estimate_on_aws
from deployments.aws.runtime.fleet import INSTANCES, estimate_on_fleet, fleet
from deployments.aws.runtime.jobs import GPU_INSTANCE, SIZES, SPOT_USD
from tasks.core.options import parse_options
from tests.core.estimate.test_run import capture

OPTIONS = parse_options("standard", ["sfm.matcher=sequential"])


def test_machines_and_prices_are_those_of_the_deployments() -> None:
    found = fleet(60, 0.05)
    assert (found.gpu.gpu, found.gpu.hourly_usd) == (True, SPOT_USD[GPU_INSTANCE])
    assert found.cpu.hourly_usd == SIZES["sfm"].hourly_usd
    assert found.run.hourly_usd == SIZES["reconstruct"].hourly_usd
    assert (found.checkpoint_seconds, fleet(0, 0.05).checkpoint_seconds) == (60, inf)


def test_one_cell_takes_about_what_one_machine_takes() -> None:
    """The fleet has the transfers besides, and compresses as sfm's task, with as many cores."""
    found, alone = estimate_on_fleet(capture(60), OPTIONS, losses_per_hour=0), estimate_on_aws(capture(60), OPTIONS)
    for row in found.rows:
        assert row.seconds == pytest.approx(alone.seconds, rel=0.06)
        assert row.losses == 0
    assert [row.instances for row in found.rows] == list(INSTANCES)


def test_more_instances_are_never_slower() -> None:
    rows = estimate_on_fleet(capture(1300), OPTIONS, losses_per_hour=0).rows
    assert rows[0].seconds > rows[1].seconds >= rows[2].seconds


def test_gaussians_that_a_card_has_no_memory_for_are_told() -> None:
    small = parse_options("standard", ["sfm.matcher=sequential", "train.max_gaussians=2000000"])
    assert len(estimate_on_fleet(capture(5000), small).notes) == 1
    _, note = estimate_on_fleet(capture(5000), OPTIONS).notes
    assert "9," in note, "a T4 has memory for about 9.4 million: docs/training.md"
    assert "these may be 16,000,000" in note
