"""Play rounds of damage: `python -m tests.fuzz [TARGET …] [--seconds N | --rounds N] [--seed N] [--first N]`."""

import argparse
import faulthandler
import warnings

from tests.fuzz.rounds import for_rounds, for_seconds, play, suite_rounds, targets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Seeded rounds of damage.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(targets())} (default: all)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, help="for so long, each target")
    length.add_argument("--rounds", type=int, help="so many, each target (default: as the suite)")
    parser.add_argument("--seed", type=int, default=0, help="another one plays other rounds (default 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first round (default 0)")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(targets()):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(targets())}")
    faulthandler.enable()  # for what ends the process
    warnings.simplefilter("ignore")  # decoders warn of what they repair
    for target in arguments.targets or targets():
        rounds = suite_rounds(target) if arguments.rounds is None else arguments.rounds
        goes_on = for_rounds(rounds) if arguments.seconds is None else for_seconds(arguments.seconds)
        print(f"\r{target}: {play(target, arguments.seed, arguments.first, goes_on)} rounds without a fault")


if __name__ == "__main__":
    main()
