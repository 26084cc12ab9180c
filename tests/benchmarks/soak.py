"""Many runs at once on one small server: `make soak`.

Queues runs of `reconstruct` (20, unless told otherwise) of one small flight, each with another seed so that each has to
train, on a server of its own with one slot for training. Ends with status 1 unless every run is Completed, no two
trainings ran at the same time, and the server's database kept up.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun
from rich.progress import Progress

from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tests.support.local_server import Served, serving

POLL_SECONDS = 1.0
TRAIN = {"steps": 60, "max_gaussians": 5000, "max_image_size": 160}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="how many (default 20)")
    parser.add_argument("--hours", type=float, default=1.0, help="give up after this long (default 1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fly(root / "flight", DemoOptions(photos=14, width=640, height=480), ignore_progress)
        with serving(root / "home", root / "workspace", gpu_slots=1) as server:
            seconds, runs, trainings = soak(server, root / "flight", arguments.runs, 3600 * arguments.hours)
            locked = server.log("server").count("database is locked")
    states = Counter(run.state_name for run in runs)
    overlaps = overlapping(trainings)
    print(f"{os.cpu_count()} cores, {len(runs)} runs in {seconds:.0f} s ({seconds / len(runs):.1f} s a run)")
    print(f"runs: {dict(states)}; trainings: {len(trainings)}, {overlaps} at the same time as another")
    print(f"'database is locked' in the server's log: {locked} times")
    sys.exit(0 if states == {"Completed": arguments.runs} and overlaps == 0 and locked == 0 else 1)


def soak(
    server: Served, photos: Path, count: int, patience_seconds: float
) -> tuple[float, list[FlowRun], list[FlowRun]]:
    """Wall time, the runs as they ended, and the runs of their train stages."""
    start = time.monotonic()
    ids = [
        server.start(
            {"photos": str(photos), "options": {"preset": "draft", "train": {**TRAIN, "random_seed": seed}}}
        ).id
        for seed in range(count)
    ]
    with server.client() as client, Progress() as bar:
        task = bar.add_task("runs", total=count)
        while True:
            runs = [client.read_flow_run(run_id) for run_id in ids]
            ended = sum(run.state is not None and run.state.is_final() for run in runs)
            bar.update(task, completed=ended)
            if ended == count or time.monotonic() - start > patience_seconds:
                break
            time.sleep(POLL_SECONDS)
        trainings = client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=["train"])))
    return time.monotonic() - start, runs, trainings


def overlapping(trainings: list[FlowRun]) -> int:
    """How many trainings began before the one before them had ended."""
    spans: list[tuple[datetime, datetime]] = sorted(
        (run.start_time, run.end_time) for run in trainings if run.start_time and run.end_time
    )
    return sum(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))


if __name__ == "__main__":
    main()
