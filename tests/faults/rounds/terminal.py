"""Rounds of `spaceport run`: the fault, then the same command again."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.core.stages import STAGES
from tests.faults.command import Command
from tests.faults.rounds.faults import Means, befall, may_end_with
from tests.faults.rounds.places import FolderPlace, Output, Place, S3Place, other_outputs
from tests.faults.rounds.plan import Round
from tests.faults.rounds.proxy import proxy
from tests.faults.rounds.results import Result, difference, shows
from tests.faults.rounds.small_disk import small_disk
from tests.faults.rounds.verdict import Verdict, family_of, orphans
from tests.support.s3_server import S3Server

TRAIN = {"steps": 150, "max_gaussians": 4000, "max_image_size": 160, "checkpoint_seconds": 0.3}
OLDER = ("-s", "train.steps=40")


@dataclass(frozen=True)
class Reference:
    """What runs make that nothing disturbs."""

    place: Place
    older: Place
    older_result: Result
    result: Result
    outputs: set[Output]
    stage_seconds: dict[str, float]


class Terminal:
    """The rounds of one kind of storage."""

    def __init__(self, folder: Path, flight: Path, s3: S3Server | None) -> None:
        """`s3`: the server, if the storage is not a folder."""
        self.folder, self._flight, self._s3 = folder, flight, s3
        folder.mkdir()
        self._home = folder / "home"
        self.reference = self._undisturbed()

    def play(self, round_: Round) -> Verdict:
        """Run, damage, look, run again, look again."""
        verdict, reference = Verdict(), self.reference
        with ExitStack() as stack:
            temporary = Path(stack.enter_context(TemporaryDirectory(dir=self.folder, prefix="tmp")))
            place, means, wrapped = stack.enter_context(self._place(round_, temporary / "trigger"))
            scratch = temporary / "scratch"
            scratch.mkdir()
            place.prepare(reference.place, round_.stage)
            if round_.over_older:
                place.take_result(reference.older)
            before = reference.older_result if round_.over_older else {}
            command = self._start(place, scratch, **wrapped)
            command.wait_for(round_.stage, round_.moment * reference.stage_seconds[round_.stage])
            status = befall(round_, command, means)
            verdict.orphans += orphans(lambda: family_of(self._home))
            verdict.said(command.said)
            last = command.said.rstrip().rsplit("\n", 1)[-1]
            verdict.happened = f"exit {status}: {last.strip()}"
            if status not in may_end_with(round_.fault):
                verdict.wrong.append(f"ended with {status}: {command.said[-500:]}")
            found = place.result()
            whole = reference.result if status == 0 else before
            if not shows(found, whole) and not shows(found, reference.result):
                verdict.wrong.append(f"left neither result: {difference(found, whole)}")

            again = self._start(place, scratch, seen_from=wrapped.get("seen_from", ()))
            if again.wait() != 0:
                verdict.wrong.append(f"the next command fails: {again.said[-500:]}")
            verdict.said(again.said)
            if differs := difference(place.result(), reference.result):
                verdict.wrong.append(f"the next command's result {differs}")
            if others := other_outputs(place.outputs(), reference.outputs):
                verdict.wrong.append(f"other outputs: {others}")
            verdict.orphans += orphans(lambda: family_of(self._home))
            verdict.look(self._home, scratch, place.left_over())
        return verdict

    @contextmanager
    def _place(self, round_: Round, trigger: Path) -> Iterator[tuple[Place, Means, dict[str, tuple[str, ...]]]]:
        """An empty place, what its fault needs, and how commands are started that feel it."""
        with ExitStack() as stack:
            if self._s3 is not None:
                spoils = stack.enter_context(proxy(self._s3.endpoint, round_.number))
                yield S3Place(self._s3, spoils.url), Means(trigger, proxy=spoils), {}
                return
            folder = self.folder / f"round-{round_.number}"
            if round_.fault == "ENOSPC":
                disk = stack.enter_context(small_disk(folder))
                yield FolderPlace(disk.folder, folder), Means(trigger, disk), {"seen_from": disk.seen_from}
                return
            module = ("tests.faults.rounds.failing_disk", str(trigger), str(folder)) if round_.fault == "EIO" else ()
            yield FolderPlace(folder), Means(trigger), {"module": module} if module else {}

    def _undisturbed(self) -> Reference:
        place = self._empty("reference")
        scratch = self.folder / "scratch"
        scratch.mkdir()
        command = self._start(place, scratch, options=OLDER)
        assert command.wait() == 0, command.said
        older = self._empty("older")
        older.take_result(place)
        place.forget(place.outputs())
        command = self._start(place, scratch)
        began = []
        for stage in STAGES:
            command.wait_for(stage)
            began.append(time.monotonic())
        assert command.wait() == 0, command.said
        seconds = [later - earlier for earlier, later in pairwise([*began, time.monotonic()])]
        return Reference(
            *(place, older, older.result(), place.result(), place.outputs()),
            dict(zip(STAGES, seconds, strict=True)),
        )

    def _empty(self, name: str) -> Place:
        return FolderPlace(self.folder / name) if self._s3 is None else S3Place(self._s3)

    def _start(self, place: Place, scratch: Path, *, options: tuple[str, ...] = (), **how: tuple[str, ...]) -> Command:
        train = [flag for name, value in TRAIN.items() for flag in ("-s", f"train.{name}={value}")]
        arguments = ["run", str(self._flight), "--preset", "draft", "--workspace", place.workspace, "--out", place.out]
        return Command([*arguments, *train, *options], self._home, {**place.variables, "TMPDIR": str(scratch)}, **how)
