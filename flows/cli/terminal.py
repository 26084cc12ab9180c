"""Progress on the terminal: bars with an ETA where there is one, plain lines otherwise."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as EtaColumn
from rich.text import Text

from tasks.core.progress import Progress as StageProgress
from tasks.core.safe_names import printable
from tasks.reporting.progress import StageListener, listening

LINE_INTERVAL_SECONDS = 10.0


@contextmanager
def showing_progress(console: Console) -> Iterator[None]:
    """Show the progress of every stage in this process while the block runs."""
    if console.is_terminal:
        with _bars(console) as bars, listening(_bar_listener(bars)):
            yield
    else:
        with listening(_line_listener(console)):
            yield


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:9}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        EtaColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
    )


def _bar_listener(bars: Progress) -> StageListener:
    """One bar a stage. The bar of the stage before is completed when the next one begins."""
    shown: dict[str, TaskID] = {}

    def update(stage: str, progress: StageProgress) -> None:
        if stage not in shown:
            shown[stage] = bars.add_task(stage, total=None, note="")
        bars.update(
            shown[stage],
            completed=progress.done,
            total=progress.total or None,
            note=printable(progress.note),
        )

    return update


def _line_listener(console: Console) -> StageListener:
    """A line when a stage begins, when it ends, and every few seconds between."""
    started: dict[str, float] = {}
    written: dict[str, float] = {}

    def write(stage: str, progress: StageProgress) -> None:
        now = time.monotonic()
        started.setdefault(stage, now)
        finished = 0 < progress.total <= progress.done
        if stage in written and not finished and now - written[stage] < LINE_INTERVAL_SECONDS:
            return
        written[stage] = now
        share = progress.done / progress.total if progress.total else 0.0
        parts = [f"{stage:9} {share:4.0%}  {now - started[stage]:5.0f} s"]
        if 0.02 < share < 1:
            parts.append(f"eta {(now - started[stage]) * (1 - share) / share:.0f} s")
        if progress.note:
            parts.append(printable(progress.note))
        console.print(Text("  ".join(parts)), soft_wrap=True)

    return write
