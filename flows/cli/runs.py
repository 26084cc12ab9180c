"""`spaceport runs | cancel | logs`: runs of Prefect's UI, in the terminal."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.connection import ask_quickly, use_server
from flows.cli.terminal import lines_of_cells, plain, saying
from tasks.running.settings import Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Its id, the start of its id, or its name; `spaceport runs` lists them.")
]
STATE_STYLES = {"Completed": "green", "Failed": "red", "Crashed": "red", "Cancelled": "yellow"}


def register(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command(epilog="Examples:  spaceport runs  ·  spaceport runs --state Running --state Failed --limit 50")
    def runs(
        limit: Annotated[int, typer.Option("--limit", "-n", help="How many, the newest first.", min=1, max=200)] = 10,
        state: Annotated[
            list[str] | None,
            typer.Option(
                metavar="STATE",
                help="Only these: Scheduled, Late, Pending, Running, AwaitingRetry, Completed, Failed, …",
            ),
        ] = None,
    ) -> None:
        """List the runs on the Prefect server: state, stage in progress, duration, quality and page."""
        settings = _connect()
        from flows.cli.flow_runs import HEADINGS, recent_runs, row

        with _client() as client:
            rows = [row(client, found, settings) for found in recent_runs(client, limit, state or [])]
        if not rows and state:
            console.print(f"no run is {plain(' or '.join(state))}", highlight=False, markup=False)
            return
        if not rows:
            console.print("no runs yet; start one in the UI or with `spaceport run PHOTOS`", highlight=False)
            return
        styles = ["bold", *(STATE_STYLES.get(cells[HEADINGS.index("state")]) for cells in rows)]
        for line, style in zip(lines_of_cells([HEADINGS, *rows]), styles, strict=True):
            console.print(plain(line), style=style, highlight=False, soft_wrap=True)

    @app.command()
    def cancel(
        run: RunArgument,
        wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until its processes have ended.")] = True,
    ) -> None:
        """Cancel a run and the runs of its stages; what was finished stays in the workspace."""
        _connect()
        from flows.cli.flow_runs import cancel as cancel_run
        from flows.cli.flow_runs import find_run

        with _client() as client, saying(console) as say:
            found = find_run(client, run)
            say(f"cancelling {found.name}")
            found = cancel_run(client, found, wait=wait)
        console.print(f"{plain(found.name)} ({str(found.id)[:8]}): {plain(found.state_name)}", highlight=False)

    @app.command()
    def logs(
        run: RunArgument,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    ) -> None:
        """Show the log of a run and of its stages, by time."""
        _connect()
        from flows.cli.flow_runs import find_run, log_lines

        with _client() as client:
            for line, origin in log_lines(client, find_run(client, run), follow=follow):
                level = "" if line.level < 30 else "[yellow]warning[/] " if line.level < 40 else "[red]error[/] "
                moment = line.timestamp.astimezone().strftime("%H:%M:%S")
                console.print(
                    f"[dim]{plain(moment)} {plain(origin):9}[/]{level}{plain(line.message)}",
                    highlight=False,
                    soft_wrap=True,
                )


def _connect() -> Settings:
    """Choose the server. Call it before anything imports Prefect, which reads its settings at that moment."""
    ask_quickly()
    return use_server(Settings())


def _client() -> "SyncPrefectClient":
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)
