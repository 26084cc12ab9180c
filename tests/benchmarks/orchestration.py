"""Cost of Prefect around the work: `make bench-orchestration`.

Three figures, medians of a few runs each, in seconds of wall time:

cold    a new process runs six stages that do nothing: imports, the embedded server's start, the run, the end
warm    the same flow again in that process
cached  `reconstruct` of a small flight whose stages are all in the workspace, in a warm process: what is left is
        looking things up, and publishing
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flows.cli.prefect_variables import configure_prefect
from tasks.running.settings import Settings

STAGES = ("photos", "sfm", "train", "compress", "publish", "extra")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each kind (default 3)")
    parser.add_argument("--trivial", action="store_true", help=argparse.SUPPRESS)  # the measured process itself
    arguments = parser.parse_args()
    if arguments.trivial:
        configure_prefect(Settings())
        first, second = _run_trivial(), _run_trivial()
        print(f"{first} {second}")
        return
    cold, warm = [], []
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory() as workspace:
            start = time.monotonic()
            command = [sys.executable, "-m", "tests.benchmarks.orchestration", "--trivial"]
            environment = {**os.environ, "SPACEPORT_WORKSPACE": workspace}
            process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            whole = time.monotonic() - start
            _first, second = (float(word) for word in process.stdout.split())
            cold.append(whole - second)
            warm.append(second)
            words = [line for line in process.stderr.splitlines() if line.strip()]
            print(f"cold {cold[-1]:.1f} s, warm {second:.2f} s, {len(words)} lines on stderr", flush=True)
    configure_prefect(Settings())
    cached = _run_cached(arguments.repeat)
    print(f"{os.cpu_count()} cores, medians of {arguments.repeat}:")
    print(f"six trivial stages, cold   {statistics.median(cold):6.2f} s")
    print(f"six trivial stages, warm   {statistics.median(warm):6.2f} s")
    print(f"cached reconstruct, warm   {statistics.median(cached):6.2f} s   {[round(value, 2) for value in cached]}")


def _run_trivial() -> float:
    """Six stages through the frame that the real ones use; seconds."""
    from prefect import flow
    from pydantic import BaseModel

    from tasks.core.refs import Ref, RunContext
    from tasks.core.stage_code import StageCode
    from tasks.running.run_folder import context_of_run
    from tasks.running.settings import read_settings_of_run
    from tasks.running.stage import Stage, run_stage

    code = StageCode(("tasks.core.refs",), ("pydantic",))

    class Measured(BaseModel):
        value: int

    def compute(folder: Path) -> Measured:
        (folder / "result").write_text("result")
        return Measured(value=1)

    @flow(name="trivial")
    def trivial() -> None:
        read_settings_of_run()
        context = context_of_run("trivial", fresh=True)
        digest = "start"
        for stage in STAGES:
            made = Stage(stage, code, Measured)

            @made.task
            def run(digest: str, context: RunContext, stage: Stage[Measured] = made) -> Ref:
                return run_stage(stage, context, inputs=[digest], compute=compute)

            digest = run(digest, context).digest

    start = time.monotonic()
    trivial()
    return time.monotonic() - start


def _run_cached(repeat: int) -> list[float]:
    """Seconds of each run after the first, which computes."""
    from flows.reconstruct import reconstruct
    from tasks.core.demo.flight import fly
    from tasks.core.demo.flight_plan import DemoOptions
    from tasks.core.options import parse_options
    from tasks.core.progress import ignore_progress

    options = parse_options("draft", ["train.steps=100", "train.max_gaussians=15000", "train.max_image_size=320"])
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPACEPORT_WORKSPACE"] = f"{folder}/workspace"
        photos = Path(folder) / "small-flight"
        fly(photos, DemoOptions(photos=14, width=640, height=480), ignore_progress)
        reconstruct(str(photos), f"{folder}/first", options)
        for turn in range(repeat):
            start = time.monotonic()
            publication = reconstruct(str(photos), f"{folder}/again-{turn}", options)
            seconds.append(time.monotonic() - start)
            assert publication.cache_hits == ("photos", "sfm", "train", "compress")
    return seconds


if __name__ == "__main__":
    main()
