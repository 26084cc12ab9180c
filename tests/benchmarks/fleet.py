"""Simulated fleets as a table: `python -m tests.benchmarks.fleet [PHOTOS …] [--preset P] [--cells N …]`.

Photos of 4000x3000 px with GPS, in lines 15 m apart, as a drone takes them. What is assumed: docs/estimate.md. It
computes for some seconds, and nothing runs on AWS.
"""

import argparse
import math
import resource
import time

from deployments.aws.runtime.fleet import INSTANCES, LOSSES_PER_HOUR, estimate_on_fleet
from tasks.core.estimate.fleet import blocks_for
from tasks.core.estimate.stages import Capture
from tasks.core.options import parse_options
from tasks.core.photoset import Gps, Photo
from tasks.core.words import dollars, rough_duration

STEP_DEG = 15 / 111_000  # 15 m of latitude


def flight(count: int) -> Capture:
    """Photos on a square grid."""
    side = math.ceil(math.sqrt(count))
    return Capture(
        tuple(
            Photo(
                name=f"{i:05}.jpg", width=4000, height=3000, sha256="", focal_px=2800.0,
                gps=Gps(latitude_deg=i // side * STEP_DEG, longitude_deg=i % side * STEP_DEG, altitude_m=60.0),
            )
            for i in range(count)
        )
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=int, default=[200, 1000, 5000])
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--cells", type=int, help="instead of the number by photos")
    parser.add_argument("--blocks", action="store_true", help="divide structure from motion, too: not possible yet")
    parser.add_argument("--losses-per-hour", type=float, default=LOSSES_PER_HOUR, help="of each GPU instance")
    arguments = parser.parse_args()
    options = parse_options(arguments.preset, [f"train.cells={arguments.cells}"] if arguments.cells else [])
    print(f"| photos, blocks, cells | {' | '.join(f'{n} at once' for n in INSTANCES)} |")
    print("|---|" + "---|" * len(INSTANCES))
    for count in arguments.photos:
        began = time.process_time()
        found = estimate_on_fleet(
            flight(count), options, arguments.losses_per_hour, blocks_for(count) if arguments.blocks else 1
        )
        cells = [
            f"{rough_duration(row.seconds)} ({rough_duration(row.seconds_p10)} to {rough_duration(row.seconds_p90)}), "
            f"{dollars(row.cost_usd)}, {row.losses:.1f} lost"
            for row in found.rows
        ]
        print(f"| {count:,}, {found.blocks}, {found.cells} | {' | '.join(cells)} |")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(f"{count:,} photos: {time.process_time() - began:.2f} CPU-s, {peak:.0f} MB at most so far", flush=True)


if __name__ == "__main__":
    main()
