"""Output on the terminal: foreign text without markup, tables, a spinner while waiting, and the progress of stages.

Progress is shown as bars with an ETA on a terminal, and as plain lines elsewhere.
"""

import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as EtaColumn
from rich.text import Text

from tasks.core.progress import Progress as StageProgress
from tasks.core.safe_names import printable, printable_lines

LINE_INTERVAL_SECONDS = 10.0

StageListener = Callable[[str, StageProgress], None]


def plain(text: object) -> str:
    """Escape a foreign text, such as a path, for rich's markup, and remove its control characters.

    Line ends and tabs stay.
    """
    return escape(printable_lines(str(text)))


def lines_of_cells(rows: Sequence[Sequence[str]], numbers: Container[int] = ()) -> list[str]:
    """Return the lines of a table without cutting any; `numbers` are the columns that are aligned to the right.

    A narrow terminal wraps such a line, and a file keeps it whole, so that links in it still work.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{'>' if i in numbers else '<'}{widths[i]}}" for i, cell in enumerate(row)).rstrip()
        for row in rows
    ]


@contextmanager
def saying(console: Console) -> Iterator[Callable[[str], None]]:
    """Print sentences that say what the command is waiting for; a terminal shows the newest one with a spinner."""
    if not console.is_terminal:
        yield lambda text: console.print(f"{plain(text)} …", style="dim", highlight=False)
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{plain(text)} …")


@contextmanager
def showing_progress(console: Console) -> Iterator[None]:
    """Show the progress of every stage in this process while the block runs."""
    from tasks.reporting.progress import listening  # imports Prefect, which most commands need late or never

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
    """Show one bar per stage. A stage's bar is completed when the next stage begins."""
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
    """Print a line when a stage begins, when it ends, and every few seconds in between."""
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
