"""Our SOG writer beside @playcanvas/splat-transform, the format's reference program, on this machine's CPU.

    python -m tests.benchmarks.sog [--rounds 3] [--run FOLDER] [--only no-sh,sh,size,trained]

The peer is the program that SPLAT_TRANSFORM names, else what npx finds or fetches into its own cache. Both write the
same .ply in turn, whole processes, start-up included; medians over the rounds. Splats are generated terrain; with
--run, a folder that `spaceport run` filled, the small splat with spherical harmonics is 5,000 Gaussians of that run's,
which a search tree orders less easily than terrain's, and the size and loss that its report gives are judged too.
Bars are printed with what was measured, met or not; the last lines say how the peer reads our files.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tasks.core.gaussians import Gaussians
from tasks.core.ply import read_ply, write_ply
from tasks.core.sog.writer import run_every_kernel
from tests.benchmarks.sog_errors import disagreement, errors
from tests.core.sog.splats import terrain

PEER_PACKAGE = "@playcanvas/splat-transform@3.7.0"
OURS = """
import sys
from pathlib import Path
from tasks.core.sog.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""
MEASURE = """
import os, sys, time
start = time.perf_counter()
pid = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print()
print([used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss])
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Bench:
    """Where files lie, and how both programs are started."""

    folder: Path
    peer: list[str]
    rounds: int

    def commands(self, source: Path) -> dict[str, list[str]]:
        ours, theirs = self.folder / "ours.sog", self.folder / "peer.sog"
        return {
            "ours": [sys.executable, "-c", OURS, str(source), str(ours)],
            "peer": [*self.peer, "-w", "-g", "cpu", str(source), str(theirs)],
        }


def peer_program() -> list[str]:
    named = os.environ.get("SPLAT_TRANSFORM")
    if named:
        return shlex.split(named)
    npx = ["npx", "--yes", f"--package={PEER_PACKAGE}", "-c", "command -v splat-transform"]
    return [subprocess.run(npx, check=True, capture_output=True, text=True).stdout.strip()]


def cost_of(command: list[str]) -> Cost:
    """What a whole process costs; measured by a small one, because a child's peak memory begins with its parent's."""
    measured = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, *command], capture_output=True, text=True, check=False
    )
    if measured.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{measured.stdout}{measured.stderr}")
    cpu, wall, peak_kib = json.loads(measured.stdout.splitlines()[-1])
    return Cost(cpu, wall, peak_kib * 1024)


def median_costs(bench: Bench, source: Path, who: tuple[str, ...] = ("ours", "peer")) -> dict[str, Cost]:
    commands = bench.commands(source)
    costs: dict[str, list[Cost]] = {name: [] for name in who}
    for _ in range(bench.rounds):
        for name in who:
            costs[name].append(cost_of(commands[name]))
    fields = ("cpu_seconds", "wall_seconds", "peak_bytes")
    return {
        name: Cost(*(statistics.median(getattr(cost, field) for cost in several) for field in fields))
        for name, several in costs.items()
    }


def bar(text: str, measured: float, limit: float, met: bool | None = None) -> None:
    passed = measured <= limit if met is None else met
    print(f"  {'met   ' if passed else 'MISSED'} {text}: {measured:.3g} (bar {limit:.3g})", flush=True)


def compare(bench: Bench, source: Gaussians, title: str) -> dict[str, float]:
    """Run both, print a table, and return the ratios by row."""
    file = bench.folder / "source.ply"
    write_ply(source, file)
    costs = median_costs(bench, file)
    outputs = {name: bench.folder / f"{name}.sog" for name in costs}
    rows = {
        "CPU (s)": [cost.cpu_seconds for cost in costs.values()],
        "wall (s)": [cost.wall_seconds for cost in costs.values()],
        "peak (MB)": [cost.peak_bytes / 1e6 for cost in costs.values()],
        "bytes": [float(path.stat().st_size) for path in outputs.values()],
    }
    ours, theirs = (errors(source, path) for path in outputs.values())
    rows |= {name: [ours[name], theirs[name]] for name in ours}
    print(f"\n{title}: {len(source):,} Gaussians, degree {source.sh_degree}, medians of {bench.rounds}")
    print(f"  {'':18}{'ours':>12}{'peer':>12}{'ours/peer':>11}")
    for name, (a, b) in rows.items():
        print(f"  {name:18}{a:12,.6g}{b:12,.6g}{a / b:11.3f}")
    decoded = bench.folder / "decoded.ply"
    cost_of([*bench.peer, "-w", str(outputs["ours"]), str(decoded)])
    # positions go through log and exp in float32 once more on one side
    bar("the peer reads our file, greatest difference", disagreement(outputs["ours"], decoded), 1e-4)
    return {name: a / b for name, (a, b) in rows.items()}


def without_sh(bench: Bench) -> None:
    for count, cpu, wall in ((100_000, 0.5, None), (500_000, 0.4, 0.3), (1_000_000, 0.4, 0.3)):
        ratio = compare(bench, terrain(count, 0), "no SH")
        bar("CPU", ratio["CPU (s)"], cpu)
        if wall is not None:
            bar("wall", ratio["wall (s)"], wall)
        half = max(ratio["log position"], ratio["rotation (deg)"], ratio["opacity"])
        others = max(ratio["log scale"], ratio["sh0"])
        bar("bytes", ratio["bytes"], 0.99)
        bar("… with rms of position, rotation and opacity", half, 0.55)
        bar("… and rms of scale and colour", others, 1.0)


def with_sh(bench: Bench, run: Path | None) -> None:
    few = terrain(5000, 3)
    if run is not None:
        trained = read_ply(run / "scene.ply")
        few = trained.take(np.sort(np.random.default_rng(0).permutation(len(trained))[:5000]))
    ratio = compare(bench, few, "SH3, few")
    bar("bytes", ratio["bytes"], 0.97)
    bar("rms of SH", ratio["shN"], 1.0)
    bar("CPU", ratio["CPU (s)"], 0.1)


def at_size(bench: Bench) -> None:
    print("\nSH3 at size, ours only: the peer does not finish")
    file = bench.folder / "source.ply"
    write_ply(terrain(500_000, 3), file)
    cost = median_costs(replace(bench, rounds=1), file, ("ours",))["ours"]
    bar("500,000 with 65,536 entries, CPU (s)", cost.cpu_seconds, 40)
    write_ply(terrain(1_000_000, 3), file)
    cost = median_costs(replace(bench, rounds=1), file, ("ours",))["ours"]
    bar("1,000,000, peak (GB)", cost.peak_bytes / 1e9, 1.2)


def trained_scene(run: Path) -> None:
    sog = json.loads((run / "report.json").read_text())["sog"]
    print(f"\nTrained scene, {run.name}: {sog['ply_bytes']:,} bytes of .ply, {sog['bytes']:,} of .sog")
    ratio = sog["ply_bytes"] / sog["bytes"]
    bar("times smaller", ratio, 15, ratio >= 15)
    bar("held-out PSNR lost (dB)", sog["psnr_drop_db"], 0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="a folder that `spaceport run` filled")
    parser.add_argument("--only", default="no-sh,sh,size,trained")
    chosen = parser.parse_args()
    run_every_kernel()  # compiled once at set-up; not a part of writing
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), peer_program(), chosen.rounds)
        parts: dict[str, Callable[[], None]] = {
            "no-sh": lambda: without_sh(bench),
            "sh": lambda: with_sh(bench, chosen.run),
            "size": lambda: at_size(bench),
        }
        if chosen.run is not None:
            parts["trained"] = lambda: trained_scene(chosen.run)
        for name, part in parts.items():
            if name in chosen.only.split(","):
                part()


if __name__ == "__main__":
    main()
