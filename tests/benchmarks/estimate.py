"""Estimated against measured, stage by stage: `make bench-estimate`, or `python -m tests.benchmarks.estimate [SET …]`.

For each set (brighton, fox, sceaux, demo) and preset the estimate is made as `spaceport estimate` makes it, then the
whole run is made, with nothing in its workspace, and the ratio of measured to estimated is printed for each stage and
for the whole. The bar is 0.7 to 1.3 for the whole, on a machine that does nothing else.

A busy machine makes a run longer, which no estimate foresees. So CPU seconds are compared as well: the model's for one
core against those that the processes took; beside other work these come out somewhat too high.

--calibrate prints what tasks/core/estimate/machine.py needs of a reference machine.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from flows.cli.prefect_variables import configure_prefect
from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.estimate.machine import REFERENCE_SECONDS, least_seconds
from tasks.core.estimate.run import STAGES, cpu_seconds
from tasks.core.measurements import Report
from tasks.core.options import parse_options
from tasks.core.progress import ignore_progress
from tasks.running.settings import Settings

DATA = Path(__file__).parents[3] / "shared" / "data"
PHOTOS = {"brighton": DATA / "brighton_beach", "fox": DATA / "fox" / "images", "sceaux": DATA / "sceaux_castle"}
BAR = (0.7, 1.3)  # measured / estimated


class CpuClock:
    """CPU seconds of each stage, of this process and of those that it has waited for."""

    def __init__(self) -> None:
        self.stage: str | None = None
        self.seconds: dict[str, float] = {}
        self._since = _cpu_seconds()

    def tell(self, stage: str | None) -> None:
        """The stage that is at work from now on."""
        if stage == self.stage:
            return
        now = _cpu_seconds()
        if self.stage is not None:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self._since
        self.stage, self._since = stage, now


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def compare(name: str, photos: Path, preset: str, assignments: list[str]) -> None:
    """Estimate, run, and print the ratios. In a process of its own: what has been loaded is not loaded again."""
    configure_prefect(Settings())
    from flows.reconstruct import reconstruct
    from tasks.reporting.progress import listening
    from tasks.running.estimate import capture_at

    options = parse_options(preset, assignments)
    planned_cpu = cpu_seconds(capture_at(str(photos), ""), options)
    clock = CpuClock()
    with tempfile.TemporaryDirectory() as folder, listening(lambda stage, _: clock.tell(stage)):
        os.environ["SPACEPORT_WORKSPACE"] = f"{folder}/workspace"
        reconstruct(str(photos), f"{folder}/out", options)
        clock.tell(None)
        report = Report.model_validate_json((Path(folder) / "out" / "report.json").read_bytes())
    assert report.estimate is not None
    expected, took = report.estimate.seconds.model_dump(), report.seconds.model_dump()
    print(f"{name}, {preset}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"  {'':9} {'expected':>9} {'took':>9} {'ratio':>6}   {'model CPU-s':>11} {'CPU-s':>7} {'ratio':>6}")
    for stage in STAGES:
        planned, used = planned_cpu[stage], clock.seconds.get(stage, 0.0)
        print(
            f"  {stage:9} {expected[stage]:7.1f} s {took[stage]:7.1f} s {took[stage] / expected[stage]:6.2f}   "
            f"{planned:11.1f} {used:7.1f} {used / planned:6.2f}"
        )
    planned, used = sum(planned_cpu.values()), sum(clock.seconds.values())
    ratio = took["total"] / expected["total"]
    verdict = "reached" if BAR[0] <= ratio <= BAR[1] else "MISSED"
    print(
        f"  {'in all':9} {expected['total']:7.1f} s {took['total']:7.1f} s {ratio:6.2f}   {planned:11.1f} {used:7.1f} "
        f"{used / planned:6.2f}   {verdict} {BAR[0]} to {BAR[1]} of the time"
    )
    peak = report.peak_memory_bytes or 0
    print(
        f"  {'memory':9} {report.estimate.peak_memory_bytes / 1e9:6.2f} GB {peak / 1e9:6.2f} GB "
        f"{peak / report.estimate.peak_memory_bytes:6.2f}   {report.train.steps} steps, {report.sfm.points} points, "
        f"{report.train.num_gaussians} Gaussians",
        flush=True,
    )


def calibrate() -> None:
    """Print the least CPU seconds of the piece of work that tells how fast a core is."""
    found = [least_seconds(1.0) for _ in range(10)]
    print(f"least of ten times a second: {min(found) * 1e3:.3f} ms, the greatest {max(found) * 1e3:.3f} ms")
    print(f"the reference is {REFERENCE_SECONDS * 1e3:.3f} ms")


def main() -> None:
    """Estimate, run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help="brighton, fox, sceaux, demo (default: brighton, demo)")
    parser.add_argument("--presets", nargs="+", default=["standard"], metavar="PRESET")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.OPTION=VALUE", dest="assignments")
    parser.add_argument("--calibrate", action="store_true", help="only time the piece of work of the calibration")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.calibrate:
        return calibrate()
    if arguments.child:
        name, photos, preset = arguments.child
        return compare(name, Path(photos), preset, arguments.assignments)
    with tempfile.TemporaryDirectory() as folder:
        flight = Path(folder) / "drone-demo"
        for name in arguments.sets or ("brighton", "demo"):
            if name == "demo" and not flight.exists():
                fly(flight, DemoOptions(), ignore_progress)
            photos = PHOTOS.get(name, flight)
            for preset in arguments.presets:
                own = {**os.environ, "SPACEPORT_HOME": f"{folder}/home"}
                command = [sys.executable, "-m", "tests.benchmarks.estimate", "--child", name, str(photos), preset]
                command += [part for each in arguments.assignments for part in ("--set", each)]
                subprocess.run(command, check=True, env=own)
    return None


if __name__ == "__main__":
    main()
