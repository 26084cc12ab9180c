"""`spaceport up | down | status`: the Prefect server of this machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from deployments.local_state import read_state, running_server
from deployments.plan import STAGES
from flows.connection import answers
from tasks.core.errors import OptionsError, ServerError
from tasks.core.settings import Settings, configure_prefect


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
                help="Where stage outputs and results are kept (default: ./spaceport-data).",
                show_default=False,
            ),
        ] = None,
        gpu_slots: Annotated[int | None, typer.Option(help="Trainings at once (default: 1).", min=1)] = None,
        cpu_slots: Annotated[int | None, typer.Option(help="Other stages at once (default: 2).", min=1)] = None,
        notify: Annotated[
            str | None,
            typer.Option(metavar="URL", help='Is sent a JSON message when a run is done or has failed; "" ends that.'),
        ] = None,
        dispatch: Annotated[
            str | None,
            typer.Option(
                metavar="STAGE,…",
                help='Stages in work pools of their own (default: sfm,train,compress); "" keeps all in one process.',
            ),
        ] = None,
    ) -> None:
        """Start this machine's Prefect server with UI, workers and deployments; a second time changes nothing."""
        from deployments.local_server import Choices, bring_up

        settings = Settings.from_environment()
        configure_prefect(settings)
        choices = Choices(
            workspace=_workspace(workspace, settings),
            port=port,
            pages_port=pages_port,
            gpu_slots=gpu_slots,
            cpu_slots=cpu_slots,
            notify=notify,
            dispatch=_stages(dispatch),
            hourly_cost_usd=settings.hourly_cost_usd,
        )
        with saying(console) as say:
            server, changes = bring_up(choices, settings.home, say)
        for change in changes or ["everything was up already; nothing changed"]:
            console.print(change, style="dim", highlight=False, soft_wrap=True)
        lines = [
            ("UI", server.ui_url),
            ("start a run", f"{server.ui_url}/v2/deployments → reconstruct → Run, or: spaceport run PHOTOS"),
            ("workspace", server.plan.workspace),
            ("pages", server.plan.pages_url or "in the bucket"),
            ("then", "spaceport status · runs · logs RUN · cancel RUN · down"),
        ]
        for name, value in lines:
            console.print(f"[bold]{name:12}[/] {value}", highlight=False, soft_wrap=True)

    @app.command()
    def down(
        now: Annotated[
            bool, typer.Option("--now", help="Cancel the runs in progress first, instead of refusing.")
        ] = False,
    ) -> None:
        """Stop this machine's Prefect server, its workers and the pages; runs that wait go on after the next `up`."""
        from deployments.local_server import take_down

        settings = Settings.from_environment()
        with saying(console) as say:
            _end_runs(settings, now, say)
            stopped = take_down(settings.home, say)
        console.print(f"stopped {', '.join(stopped)}" if stopped else "nothing was up", highlight=False)

    @app.command()
    def status() -> None:
        """Say how the Prefect server of this machine is; exit status 1 when something does not run."""
        settings = Settings.from_environment()
        server = read_state(settings.home)
        if server is None:
            console.print("nothing is up; `spaceport up` starts it")
            raise typer.Exit(1)
        os.environ["PREFECT_API_URL"] = server.api_url
        configure_prefect(settings)
        from deployments.status import examine

        parts = examine(server, settings.home)
        for part in parts:
            mark = "[green]ok  [/]" if part.ok else "[red]down[/]"
            console.print(f"{mark} {part.name:11} {part.says}", highlight=False, soft_wrap=True)
        if parts[0].ok:
            _print_runs_at_work(console)
        if not all(part.ok for part in parts):
            console.print("`spaceport up` starts what does not run", highlight=False)
            raise typer.Exit(1)


@contextmanager
def saying(console: Console) -> Iterator[Callable[[str], None]]:
    """A line that tells what is being waited for; on a terminal it turns."""
    if not console.is_terminal:
        yield lambda text: console.print(f"{text} …", style="dim", highlight=False)
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{text} …")


def _end_runs(settings: Settings, now: bool, say: Callable[[str], None]) -> None:
    """Cancel what a worker works on when `now` says so. Raises ServerError when there is something and it does not."""
    server = running_server(settings.home)
    if server is None or not answers(server.api_url):
        return
    os.environ["PREFECT_API_URL"] = server.api_url
    configure_prefect(settings)
    from prefect.client.orchestration import get_client

    from flows.runs import cancel_for_good, runs_at_work

    with get_client(sync_client=True) as client:
        at_work = runs_at_work(client)
        if at_work and not now:
            names = ", ".join(f"{run.name} ({str(run.id)[:8]})" for run in at_work)
            raise ServerError(
                f"{len(at_work)} in progress: {names}. Wait for the end, or cancel with `spaceport down --now`."
            )
        for run in at_work:
            if run.deployment_id is not None:  # a run in somebody's terminal has to end there
                say(f"cancelling {run.name}")
                cancel_for_good(client, run)


def _print_runs_at_work(console: Console) -> None:
    from prefect.client.orchestration import get_client

    from flows.run_table import stage_in_progress
    from flows.runs import runs_at_work

    with get_client(sync_client=True) as client:
        at_work = runs_at_work(client)
        for run in at_work:
            stage = stage_in_progress(client, run) or run.state_name
            console.print(f"run  {str(run.id)[:8]:11} {run.name}: {stage}", highlight=False, soft_wrap=True)
    if not at_work:
        console.print("     no run in progress", highlight=False)


def _workspace(named: str | None, settings: Settings) -> str | None:
    """An absolute one, since workers have other working directories; None leaves what was last up as it was."""
    if named is None and read_state(settings.home) is not None:
        return None
    return (settings if named is None else settings.model_copy(update={"workspace": named})).absolute_workspace


def _stages(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    stages = tuple(stage.strip() for stage in text.split(",") if stage.strip())
    unknown = sorted(set(stages) - set(STAGES))
    if unknown:
        raise OptionsError(f"--dispatch names {', '.join(unknown)}; the stages are {', '.join(STAGES)}.")
    return stages
