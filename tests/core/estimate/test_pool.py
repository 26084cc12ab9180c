"""Jobs on a pool of instances, with times that were added up by hand."""

from math import inf

import pytest

from tasks.core.estimate.pool import Job, Outcome, Pool, run_jobs

START = 100.0
JOB = Job(seconds=1000, before=20, after=30)  # 1,050 s


def pool(instances: int, checkpoint_seconds: float = 60) -> Pool:
    return Pool(instances, START, checkpoint_seconds)


def lost_after(*lifetimes: float) -> object:
    """Lifetimes of instances in the order of their starts; the later ones are not lost."""
    left = iter(lifetimes)
    return lambda: next(left, inf)


def test_one_job() -> None:
    assert run_jobs([JOB], pool(1)) == Outcome(seconds=1150, paid_seconds=1150, losses=0)


def test_one_instance_does_all_jobs_one_after_another() -> None:
    assert run_jobs([JOB] * 3, pool(1)) == Outcome(100 + 3 * 1050, 100 + 3 * 1050, 0)


def test_more_instances_than_jobs_are_not_started() -> None:
    assert run_jobs([JOB] * 3, pool(16)) == Outcome(1150, 3 * 1150, 0)


def test_an_instance_ends_when_no_job_waits() -> None:
    """Two do two jobs each, and the third one does one and is not paid while the others work."""
    assert run_jobs([JOB] * 5, pool(3)) == Outcome(2200, 2 * 2200 + 1150, 0)


def test_long_jobs_come_first() -> None:
    short = Job(200)
    assert run_jobs([short, short, Job(400)], pool(2)) == Outcome(500, 1000, 0)


def test_a_job_continues_from_its_last_checkpoint() -> None:
    """Lost at 500 s: 380 s of work, of which 360 are saved. The other one starts at 500 and begins at 600 s."""
    found = run_jobs([JOB], pool(1), lost_after(500))
    assert found == Outcome(seconds=600 + 20 + 640 + 30, paid_seconds=500 + 790, losses=1)


def test_without_checkpoints_it_begins_anew() -> None:
    found = run_jobs([JOB], pool(1, inf), lost_after(500))
    assert found == Outcome(600 + 1050, 500 + 1150, 1)


def test_work_that_is_done_is_not_done_again_if_the_upload_is_lost() -> None:
    """Lost at 1,130 s, 10 s into the upload: 960 of the 1,000 s are saved."""
    assert run_jobs([JOB], pool(1), lost_after(1130)) == Outcome(1130 + 100 + 20 + 40 + 30, 1130 + 190, 1)


def test_an_instance_can_be_lost_before_it_works_and_twice() -> None:
    found = run_jobs([JOB], pool(1), lost_after(40, 30))
    assert found == Outcome(70 + 1150, 70 + 1150, 2)


def test_a_loss_concerns_its_own_job_alone() -> None:
    found = run_jobs([JOB] * 2, pool(2), lost_after(inf, 500))
    assert found == Outcome(1290, 1150 + 500 + 790, 1)


def test_a_lost_job_waits_for_no_instance_that_has_ended() -> None:
    """The first instance has ended at 300 s when the second is lost at 400 s."""
    found = run_jobs([Job(200), Job(500)], Pool(2, 100, inf), lost_after(400, inf))
    assert found == Outcome(400 + 100 + 500, 400 + 600 + 300, 1)


@pytest.mark.parametrize("instances", [1, 4])
def test_nothing_to_do(instances: int) -> None:
    assert run_jobs([], pool(instances)) == Outcome(0, 0, 0)
