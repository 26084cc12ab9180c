"""Findings on the terminal: what was looked at, what it says, and the fix of what is not as it should be."""

from collections.abc import Iterable

import typer
from rich.console import Console

from deployments.findings import Finding
from flows.cli.plain_text import plain

MARKS = {"ok": "[green]ok  [/]", "optional": "[yellow]—   [/]", "miss": "[red]miss[/]"}


def print_findings(findings: Iterable[Finding], console: Console) -> None:
    """Print each as soon as it is there. Ends the command with status 1 when something that is needed is missing."""
    missing = False
    for finding in findings:
        mark = MARKS["ok" if finding.ok else "optional" if finding.optional else "miss"]
        console.print(f"{mark} {plain(finding.part):16} {plain(finding.says)}", highlight=False, soft_wrap=True)
        if not finding.ok:
            console.print(f"                      → {plain(finding.fix)}", highlight=False, soft_wrap=True)
            missing |= not finding.optional
    if missing:
        raise typer.Exit(1)
