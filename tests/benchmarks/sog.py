"""Our SOG writer beside @playcanvas/splat-transform, the format's reference program, on this machine's CPU.

    python -m tests.benchmarks.sog [--count 100000] [--degree 0] [--ply FILE] [--rounds 3]

The peer is the program that SPLAT_TRANSFORM names, else what npx finds or fetches into its own cache. Both write the
same .ply in turn, whole processes, start-up included; medians over the rounds. Then the peer decodes our file, which
must give the numbers that our own reader gives.
"""

import argparse
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import expit

from tasks.core.gaussians import Gaussians
from tasks.core.ply import read_ply, write_ply
from tasks.core.sog.attributes import log_positions
from tasks.core.sog.kernels import run_every_kernel
from tasks.core.sog.reader import read_sog
from tests.core.sog.splats import terrain

PEER_PACKAGE = "@playcanvas/splat-transform@3.7.0"
OURS = """
import sys
from pathlib import Path
from tasks.core.sog.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@dataclass(frozen=True)
class Cost:
    cpu_seconds: float
    wall_seconds: float


def peer_program() -> list[str]:
    named = os.environ.get("SPLAT_TRANSFORM")
    if named:
        return shlex.split(named)
    npx = ["npx", "--yes", f"--package={PEER_PACKAGE}", "-c", "command -v splat-transform"]
    return [subprocess.run(npx, check=True, capture_output=True, text=True).stdout.strip()]


def cost_of(command: list[str]) -> Cost:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    if finished.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{finished.stdout}{finished.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, end - start)


def errors(source: Gaussians, sog: Path) -> dict[str, float]:
    """Root mean square errors by attribute; Gaussians are matched by their place in log positions."""
    back = read_sog(sog)
    _, match = cKDTree(log_positions(back.means)).query(log_positions(source.means))
    back = back.take(match)

    def rms(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))

    unit = source.quats / np.linalg.norm(source.quats, axis=1, keepdims=True)
    cosine = np.clip(np.abs((unit.astype(np.float64) * back.quats).sum(axis=1)), 0, 1)
    measured = {
        "log position": rms(log_positions(source.means), log_positions(back.means)),
        "rotation (deg)": float(np.sqrt(np.mean(np.degrees(2 * np.arccos(cosine)) ** 2))),
        "log scale": rms(source.log_scales, back.log_scales),
        "log scale, worst": float(np.abs(source.log_scales - back.log_scales).max()),
        "opacity": rms(expit(source.raw_opacities), expit(back.raw_opacities)),
        "sh0": rms(source.sh0, back.sh0),
    }
    if back.sh_degree:
        measured["shN"] = rms(source.shN, back.shN)
    return measured


def disagreement(ours: Path, decoded_by_peer: Path) -> float:
    """Greatest difference of any number between our reading of our file and the peer's."""
    mine, theirs = read_sog(ours), read_ply(decoded_by_peer)
    names = ("means", "quats", "log_scales", "raw_opacities", "sh0", "shN")
    return max(float(np.abs(getattr(mine, n) - getattr(theirs, n)).max(initial=0)) for n in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="Gaussians of the generated terrain")
    parser.add_argument(
        "--degree", type=int, default=0, help="degree of its spherical harmonics; the peer is slow above 0"
    )
    parser.add_argument("--ply", type=Path, help="a splat to use instead of the terrain")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    peer = peer_program()
    run_every_kernel()  # compiled once at set-up; not a part of writing
    with tempfile.TemporaryDirectory() as folder:
        source_file = chosen.ply or Path(folder) / "source.ply"
        if chosen.ply is None:
            write_ply(terrain(chosen.count, chosen.degree), source_file)
        outputs = {"ours": Path(folder) / "ours.sog", "peer": Path(folder) / "peer.sog"}
        commands = {
            "ours": [sys.executable, "-c", OURS, str(source_file), str(outputs["ours"])],
            "peer": [*peer, "-w", "-g", "cpu", str(source_file), str(outputs["peer"])],
        }
        costs: dict[str, list[Cost]] = {"ours": [], "peer": []}
        for _ in range(chosen.rounds):
            for who, command in commands.items():
                costs[who].append(cost_of(command))
        source = read_ply(source_file)
        print(f"{len(source):,} Gaussians, degree {source.sh_degree}, medians of {chosen.rounds}")
        print(f"{'':18}{'ours':>12}{'peer':>12}{'ours/peer':>11}")
        rows = {
            "CPU (s)": [statistics.median(c.cpu_seconds for c in costs[who]) for who in commands],
            "wall (s)": [statistics.median(c.wall_seconds for c in costs[who]) for who in commands],
            "bytes": [float(path.stat().st_size) for path in outputs.values()],
        }
        ours, theirs = (errors(source, path) for path in outputs.values())
        rows |= {name: [ours[name], theirs[name]] for name in ours}
        for name, (a, b) in rows.items():
            print(f"{name:18}{a:12,.6g}{b:12,.6g}{a / b:11.2f}")
        decoded = Path(folder) / "decoded.ply"
        cost_of([*peer, "-w", str(outputs["ours"]), str(decoded)])
        difference = disagreement(outputs["ours"], decoded)
        print(f"the peer reads our file; greatest difference from our own reader: {difference:.2g}")


if __name__ == "__main__":
    main()
