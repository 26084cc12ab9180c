"""`python -m tests.faults.rounds --rounds 60 --seed 0`: play the rounds, print each of them and what came of all."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tests.faults.rounds.plan import Round, draw
from tests.faults.rounds.server import server
from tests.faults.rounds.terminal import Terminal
from tests.faults.rounds.verdict import Verdict
from tests.support.s3_server import S3Server, s3_server

Play = Callable[[Round], Verdict]
HEADER = f"{'round':>5}  {'where':16}{'stage':10}{'fault':22}{'moment':>6}  {'older':7}{'took':>5}"


def main() -> int:
    """Play, print, and return the exit status: 1 when anything is not as it should be."""
    arguments = _arguments()
    rounds = [
        each
        for each in draw(arguments.rounds, arguments.seed)
        if arguments.only is None or each.number in arguments.only
    ]
    print(f"{len(rounds)} rounds of seed {arguments.seed}\n{HEADER}", flush=True)
    with TemporaryDirectory(prefix="spaceport-faults-") as name:
        verdicts = list(_play_all(Path(name), rounds))
    total = {
        kind: sum(len(getattr(verdict, kind)) for verdict in verdicts)
        for kind in ("wrong", "left_over", "orphans", "running")
    }
    print(
        f"{len(rounds)} rounds: {total['wrong']} wrong, {total['left_over']} left over, {total['orphans']} orphans, "
        f"{total['running']} still running"
    )
    return int(any(total.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="how many are drawn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: %(default)s)")
    parser.add_argument(
        "--only", type=int, nargs="+", metavar="ROUND", help="those of these numbers, to see them again"
    )
    return parser.parse_args()


def _play_all(folder: Path, rounds: list[Round]) -> Iterator[Verdict]:
    flight = folder / "flight"
    fly(flight, DemoOptions(photos=14, width=640, height=480), ignore_progress)
    terminals: dict[str, Terminal] = {}
    with ExitStack() as stack:
        storages = {each.storage for each in rounds}
        s3 = stack.enter_context(s3_server(folder / "s3-server")) if "s3" in storages else None
        for storage in sorted(storages):
            terminals[storage] = Terminal(folder / storage, flight, s3 if storage == "s3" else None)
        for (runs_in, storage), group in groupby(rounds, key=lambda each: each.where):
            with _player(runs_in, folder / f"server-{storage}", flight, terminals[storage], s3) as play:
                for round_ in group:
                    yield _played(round_, play)


@contextmanager
def _player(runs_in: str, folder: Path, flight: Path, terminal: Terminal, s3: S3Server | None) -> Iterator[Play]:
    if runs_in == "terminal":
        yield terminal.play
        return
    with server(folder, flight, terminal.reference, s3 if "s3" in folder.name else None) as (made, left_running):
        yield made.play
    assert left_running() == [], "processes of a server that has ended"


def _played(round_: Round, play: Play) -> Verdict:
    where = f"{round_.runs_in}, {round_.storage}"
    started = time.monotonic()
    print(
        f"{round_.number:>5}  {where:16}{round_.stage:10}{round_.fault:22}{round_.moment:>6.0%}  "
        f"{'yes' if round_.over_older else 'no':7}",
        end="",
        flush=True,
    )
    try:
        verdict = play(round_)
    except Exception as error:  # noqa: BLE001 - a round that cannot be played has failed, and the others are still of interest
        verdict = Verdict(wrong=[f"{type(error).__name__}: {error}"])
    print(f"{time.monotonic() - started:4.0f}s  {verdict.happened}", flush=True)
    for kind in ("wrong", "left_over", "orphans", "running"):
        for finding in getattr(verdict, kind):
            print(f"       {kind}: {finding}", flush=True)
    return verdict


if __name__ == "__main__":
    sys.exit(main())
