"""`spaceport doctor | validate`: check that this machine, an account or a workspace works."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from typing import Annotated

import psutil
import typer
from rich.console import Console

from deployments.findings import Finding
from flows.cli.terminal import plain
from tasks.core.errors import MissingPartError
from tasks.running.settings import Settings

MARKS = {"ok": "[green]ok  [/]", "optional": "[yellow]—   [/]", "miss": "[red]miss[/]"}


def register(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def doctor(
        aws: Annotated[bool, typer.Option("--aws", help="Look at an AWS account instead; it spends nothing.")] = False,
    ) -> None:
        """Say what this machine, or an AWS account, can run and what is missing, with the fix."""
        if aws:
            from deployments.aws.runtime.doctor import examine_account

            findings = examine_account()
        else:
            findings = examine()
        print_findings(findings, console)

    @app.command()
    def validate(
        workspace: Annotated[
            str | None,
            typer.Option(
                "--workspace",
                "-w",
                metavar="DIR|s3://…",
                help="The workspace to validate (default: that of the account or server that is configured).",
                show_default=False,
            ),
        ] = None,
        timeout: Annotated[
            float, typer.Option(metavar="SECONDS", help="How long to wait for the run's end.", min=10, max=24 * 3600)
        ] = 1800,
        keep: Annotated[bool, typer.Option("--keep", help="Remove nothing of what was made.")] = False,
    ) -> None:
        """Run a small generated capture as this workspace's captures run, check the result, and remove it all.

        That is an upload with READY.json to the account that SPACEPORT_INFRASTRUCTURE names; else a run of the
        deployment on the Prefect server of `spaceport up` or PREFECT_API_URL; else the flow in this process.
        """
        from flows.cli.validate import validate as validate_workspace

        validate_workspace(workspace, timeout, keep, console)


def examine() -> list[Finding]:
    """Check everything that a run needs on this machine."""
    from tasks.core.render.backends import rasterizer_for
    from tasks.core.viewer.bundle import viewer_version

    settings = Settings()
    memory = psutil.virtual_memory()
    disk = shutil.disk_usage(".")
    return [
        Finding(
            "machine", True, f"{os.cpu_count()} cores, {memory.total / 2**30:.0f} GiB of memory, {platform.machine()}"
        ),
        Finding("python", True, platform.python_version()),
        _enough("free memory", memory.available, 2 * 2**30, "Close other programs, or use --preset draft."),
        _enough("free disk", disk.free, 2 * 2**30, "Free some disk, or name another --workspace."),
        *(_package(name) for name in ("prefect", "pycolmap", "torch", "numba", "gsplat")),
        _part("viewer", lambda: f"supersplat-viewer {viewer_version()}", optional=False),
        _part("training, CPU", lambda: f"{rasterizer_for('cpu').name} backend", optional=False),
        _part("training, CUDA", lambda: f"{rasterizer_for('cuda').name} backend", optional=True),
        Finding("training uses", True, f"{rasterizer_for('auto').name} backend"),
        Finding("workspace", True, str(settings.workspace)),
        Finding("state", True, str(settings.home)),
    ]


def _enough(part: str, available: int, needed: int, fix: str) -> Finding:
    says = f"{available / 2**30:.1f} GiB, a small capture needs {needed / 2**30:.0f}"
    return Finding(part, available >= needed, says, fix)


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", "make setup")


def _part(part: str, probe: Callable[[], str], *, optional: bool) -> Finding:
    try:
        return Finding(part, True, probe())
    except MissingPartError as error:
        return Finding(part, False, "not here", str(error), optional)


def print_findings(findings: Iterable[Finding], console: Console) -> None:
    """Print each finding as soon as it is made: the part, the answer, and the fix if the part is missing.

    Ends the command with status 1 if a required part is missing.
    """
    missing = False
    for finding in findings:
        mark = MARKS["ok" if finding.ok else "optional" if finding.optional else "miss"]
        console.print(f"{mark} {plain(finding.part):16} {plain(finding.says)}", highlight=False, soft_wrap=True)
        if not finding.ok:
            console.print(f"                      → {plain(finding.fix)}", highlight=False, soft_wrap=True)
            missing |= not finding.optional
    if missing:
        raise typer.Exit(1)
