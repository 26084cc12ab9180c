"""`spaceport doctor | validate`: whether what is here works."""

from typing import Annotated

import typer
from rich.console import Console

from flows.cli.findings import print_findings


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
            from flows.cli.doctor import examine

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
        """Let a small generated capture go the way of this workspace's captures, check what comes out, remove it all.

        The way is an upload with READY.json to the account that SPACEPORT_INFRASTRUCTURE names; else a run of the
        deployment on the Prefect server of `spaceport up` or PREFECT_API_URL; else the flow in this process.
        """
        from flows.cli.validate import validate as validate_workspace

        validate_workspace(workspace, timeout, keep, console)
