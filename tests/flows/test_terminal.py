"""Progress on the terminal."""

import io

import pytest
from rich.console import Console

from flows.cli.terminal import showing_progress
from tasks.core.progress import Progress
from tasks.reporting.progress import stage_progress


def shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    with showing_progress(console):
        report = stage_progress("sfm")
        report(Progress(0, 0, "starting"))
        for done in range(101):
            report(Progress(done, 100, f"pair {done}"))
    return stream.getvalue()


def test_plain_lines_are_few_and_have_no_control_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cli.terminal.LINE_INTERVAL_SECONDS", 3600)  # however long this takes
    lines = shown(terminal=False).splitlines()
    assert len(lines) == 2, "the first report and the last; those between come faster than the interval"
    assert lines[0].startswith("sfm")
    assert "starting" in lines[0]
    assert "100%" in lines[1]
    assert "pair 100" in lines[1]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_bar_that_ends_full() -> None:
    output = shown(terminal=True)
    assert "\x1b" in output
    assert "100%" in output
    assert "pair 100" in output


def test_nobody_listens_after_the_block() -> None:
    stream = io.StringIO()
    with showing_progress(Console(file=stream)):
        pass
    stage_progress("sfm")(Progress(1, 2))
    assert stream.getvalue() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_names_in_a_note_are_no_markup(terminal: bool) -> None:
    stream = io.StringIO()
    with showing_progress(Console(file=stream, force_terminal=terminal, width=200)):
        stage_progress("publish")(Progress(1, 1, "/results/flight [/old] [drone]"))
    assert "/results/flight [/old] [drone]" in stream.getvalue()
