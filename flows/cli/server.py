"""`spaceport up | down | status`: the Prefect server of this machine."""

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from deployments.local.access import read_secrets, sign_in_url
from deployments.local.state import LocalServer, read_state
from flows.cli.connection import ask_quickly, use_server, use_up_server
from flows.cli.prefect_variables import configure_prefect
from flows.cli.terminal import plain, saying
from tasks.core.errors import ServerError
from tasks.core.stages import STAGES
from tasks.running.settings import MOST_KEEP_DAYS, Settings, stages_named

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from deployments.local.status import Part


def register(app: typer.Typer, console: Console) -> None:
    """Add the commands to the command line."""

    @app.command()
    def up(
        port: Annotated[
            int | None,
            typer.Option(help="Of the UI, on 127.0.0.1; 0 takes a free one (default: 4200).", min=0, max=65535),
        ] = None,
        pages_port: Annotated[
            int | None,
            typer.Option(help="Of the runs' pages; 0 takes a free one (default: --port + 1).", min=0, max=65535),
        ] = None,
        workspace: Annotated[
            str | None,
            typer.Option(
                "--workspace",
                "-w",
                metavar="DIR|s3://…",
                envvar="SPACEPORT_WORKSPACE",
                help="Where stage outputs and results are kept (default: ./spaceport-data).",
                show_default=False,
            ),
        ] = None,
        gpu_slots: Annotated[int | None, typer.Option(help="Trainings at once (default: 1).", min=1)] = None,
        cpu_slots: Annotated[int | None, typer.Option(help="Other stages at once (default: 2).", min=1)] = None,
        notify: Annotated[
            str | None,
            typer.Option(metavar="URL", help='Receives a JSON message when a run is done or has failed; "" ends that.'),
        ] = None,
        dispatch: Annotated[
            str | None,
            typer.Option(
                metavar="STAGE,…",
                help='Stages in work pools of their own (default: sfm,train,compress); "" keeps all in one process.',
            ),
        ] = None,
        keep_days: Annotated[
            int | None,
            typer.Option(
                metavar="DAYS",
                envvar="SPACEPORT_KEEP_DAYS",
                help="How long Prefect keeps runs that have ended (default: 30). Results stay; see `spaceport clean`.",
                min=1,
                max=MOST_KEEP_DAYS,
                show_default=False,
            ),
        ] = None,
        reset: Annotated[
            bool, typer.Option("--reset", help="Forget earlier choices and start with the defaults again.")
        ] = False,
    ) -> None:
        """Start this machine's Prefect server with UI, workers and deployments; a second time changes nothing.

        Choices are kept, also after `spaceport down`; an option changes that one choice.
        """
        from deployments.local.server import Choices, bring_up

        settings = Settings()
        configure_prefect(settings)
        choices = Choices(
            workspace=_workspace(workspace, settings, reset=reset),
            port=port,
            pages_port=pages_port,
            gpu_slots=gpu_slots,
            cpu_slots=cpu_slots,
            notify=notify,
            dispatch=_stages(dispatch),
            hourly_cost_usd=settings.hourly_cost_usd,
            keep_days=keep_days,
        )
        with saying(console) as say:
            server, changes = bring_up(choices, settings.home, say, reset=reset)
        from deployments.local.status import paused

        _end_abandoned(settings)
        for change in changes or ["everything was up already; nothing changed"]:
            console.print(plain(change), style="dim", highlight=False, soft_wrap=True)
        for part in paused(server):
            _print_part(console, part)
        lines = [
            ("log in", _sign_in(server, settings)),
            ("UI", f"{server.ui_url}  (for a browser that is logged in)"),
            ("start a run", f"{server.ui_url}/v2/deployments → reconstruct → Run, or: spaceport run PHOTOS"),
            ("workspace", server.plan.workspace),
            ("pages", server.plan.pages_url or "in the bucket"),
            ("choices", f"{server.choices}  (kept for the next `spaceport up`; --reset forgets them)"),
            ("then", "spaceport status · runs · logs RUN · cancel RUN · down"),
        ]
        for name, value in lines:
            console.print(f"[bold]{plain(name):12}[/] {plain(value)}", highlight=False, soft_wrap=True)

    @app.command()
    def down(
        now: Annotated[
            bool, typer.Option("--now", help="Cancel the runs in progress first, instead of refusing.")
        ] = False,
    ) -> None:
        """Stop this machine's Prefect server, its workers and the pages.

        Runs that wait continue after the next `spaceport up`, which keeps ports and choices.
        """
        from deployments.local.server import take_down

        ask_quickly()
        settings = Settings()
        configure_prefect(settings)
        with saying(console) as say:
            stopped = take_down(settings.home, say, lambda client: _end_runs(client, settings, now, say), now=now)
        console.print(f"stopped {plain(', '.join(stopped))}" if stopped else "nothing was up", highlight=False)

    @app.command()
    def status() -> None:
        """Show the parts of this machine's Prefect server; exit status 1 when one of them does not run.

        A paused pool is no fault: a person has paused it, and its line says how to resume it.
        """
        ask_quickly()
        settings = Settings()
        server = read_state(settings.home)
        if server is None or not server.up:
            console.print("nothing is up; `spaceport up` starts it", highlight=False)
            if server is not None:
                console.print(f"with {plain(server.choices)}", highlight=False, soft_wrap=True)
            raise typer.Exit(1)
        use_up_server(server, settings)
        from deployments.local.status import examine

        parts = examine(server, settings.home)
        for part in parts:
            _print_part(console, part)
        console.print(f"       {'choices':11} {plain(server.choices)}", highlight=False, soft_wrap=True)
        console.print(f"       {'log in':11} {plain(_sign_in(server, settings))}", highlight=False, soft_wrap=True)
        if parts[0].ok:
            _print_runs_at_work(settings, console)
        if not all(part.ok for part in parts):
            console.print("`spaceport up` starts what does not run", highlight=False)
            raise typer.Exit(1)

    @app.command(
        "prefect",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
        epilog="Example:  spaceport prefect work-pool resume spaceport-cpu",
    )
    def prefect_command(context: typer.Context) -> None:
        """Run one of Prefect's own commands on this machine's server, which needs its secret."""
        use_server(Settings())
        raise typer.Exit(subprocess.run([sys.executable, "-m", "prefect", *context.args], check=False).returncode)


def _end_abandoned(settings: Settings) -> None:
    from prefect.client.orchestration import get_client

    from flows.cli.flow_runs import end_abandoned

    with get_client(sync_client=True) as client:
        end_abandoned(client, settings.home)


def _sign_in(server: LocalServer, settings: Settings) -> str:
    """Link that logs a browser in."""
    found = read_secrets(settings.home)
    return server.ui_url if found is None else sign_in_url(server, found.api)


def _end_runs(client: "SyncPrefectClient", settings: Settings, now: bool, say: Callable[[str], None]) -> None:
    """With `now`, cancel the runs that have begun. Otherwise raise ServerError if runs are in progress."""
    from flows.cli.flow_runs import cancel_for_good, end_abandoned, has_begun, runs_at_work

    end_abandoned(client, settings.home)
    at_work = runs_at_work(client)
    if at_work and not now:
        names = ", ".join(f"{run.name} ({str(run.id)[:8]})" for run in at_work)
        raise ServerError(
            f"{len(at_work)} in progress: {names}. Wait for the end, or cancel with `spaceport down --now`."
        )
    for run in at_work:
        if has_begun(run) and run.deployment_id is not None:  # a run in a terminal has to end there
            say(f"cancelling {run.name}")
            cancel_for_good(client, run)


def _print_part(console: Console, part: "Part") -> None:
    mark = "[yellow]paused[/]" if part.paused else "[green]ok    [/]" if part.ok else "[red]down  [/]"
    console.print(f"{mark} {plain(part.name):11} {plain(part.says)}", highlight=False, soft_wrap=True)


def _print_runs_at_work(settings: Settings, console: Console) -> None:
    from prefect.client.orchestration import get_client

    from flows.cli.flow_runs import end_abandoned, runs_at_work, stage_in_progress

    with get_client(sync_client=True) as client:
        end_abandoned(client, settings.home)
        at_work = runs_at_work(client)
        for run in at_work:
            stage = stage_in_progress(client, run) or run.state_name
            line = f"run    {str(run.id)[:8]:11} {run.name}: {stage}"
            console.print(plain(line), highlight=False, soft_wrap=True)
    if not at_work:
        console.print("       no run in progress", highlight=False)


def _workspace(named: str | None, settings: Settings, *, reset: bool) -> str | None:
    """Return an absolute path, since workers have other working directories; None keeps the last choice."""
    if named is None and not reset and read_state(settings.home) is not None:
        return None
    return (settings if named is None else settings.model_copy(update={"workspace": named})).absolute_workspace


def _stages(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    named = stages_named(text, "--dispatch")
    return tuple(stage for stage in STAGES if stage in named)
