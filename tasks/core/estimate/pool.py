"""Jobs on a pool of instances that can be lost, event by event: when the last one ends, and what is paid."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import NamedTuple


@dataclass(frozen=True)
class Job:
    """Work for one instance, in seconds. Each attempt begins with `before`; a lost one continues from a checkpoint."""

    seconds: float
    before: float = 0.0  # of each attempt: what is loaded and transferred first
    after: float = 0.0  # at the end: the result is stored


@dataclass(frozen=True)
class Pool:
    """Instances, as many at once as `instances`. One is started for each waiting job, and ends when none waits."""

    instances: int
    start_seconds: float  # from the request until it works, which is paid
    checkpoint_seconds: float = inf  # of work between two checkpoints; infinite: a lost job begins anew


class Outcome(NamedTuple):
    """What a pool took for its jobs."""

    seconds: float  # until the last job has ended
    paid_seconds: float  # of all instances together
    losses: int  # of instances


@dataclass
class _Attempt:
    job: Job
    left: float  # seconds of work

    @property
    def seconds(self) -> float:
        return self.job.before + self.left + self.job.after

    def after_loss(self, elapsed: float, checkpoint_seconds: float) -> "_Attempt":
        worked = min(max(elapsed - self.job.before, 0.0), self.left)
        saved = 0.0 if checkpoint_seconds == inf else worked // checkpoint_seconds * checkpoint_seconds
        return _Attempt(self.job, self.left - saved)


@dataclass
class _Instance:
    launched_at: float
    lost_at: float
    attempt: _Attempt | None = None
    began_at: float = 0.0


def never_lost() -> float:
    """The lifetime of an instance on demand."""
    return inf


def run_jobs(jobs: Sequence[Job], pool: Pool, lifetime: Callable[[], float] = never_lost) -> Outcome:
    """Let a pool, none of whose instances runs yet, do all jobs, the longest first.

    `lifetime` is called for each instance in the order of their starts, and returns the seconds from its start until it
    is lost. A lost one is replaced if jobs wait, which its own does.
    """
    waiting = sorted((_Attempt(job, job.seconds) for job in jobs), key=lambda attempt: -attempt.seconds)
    numbers = count()
    events: list[tuple[float, int, _Instance]] = []
    paid, finished, losses = 0.0, 0.0, 0

    def launch(now: float) -> None:
        instance = _Instance(now, now + lifetime())
        come_back(instance, now + pool.start_seconds)

    def come_back(instance: _Instance, at: float) -> None:
        heapq.heappush(events, (min(at, instance.lost_at), next(numbers), instance))

    for _ in range(min(pool.instances, len(waiting))):
        launch(0.0)
    while events:
        now, _, instance = heapq.heappop(events)
        if now == instance.lost_at:
            losses += 1
            paid += now - instance.launched_at
            if instance.attempt is not None:
                waiting.insert(0, instance.attempt.after_loss(now - instance.began_at, pool.checkpoint_seconds))
            if waiting:
                launch(now)
            continue
        if instance.attempt is not None:
            finished, instance.attempt = now, None
        if not waiting:
            paid += now - instance.launched_at
            continue
        instance.attempt, instance.began_at = waiting.pop(0), now
        come_back(instance, now + instance.attempt.seconds)
    return Outcome(finished, paid, losses)
