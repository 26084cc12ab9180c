"""`spaceport up | down | status`: the Prefect server of this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deployments.local_state import running_server
from deployments.plan import STAGES
from tasks.core.errors import OptionsError
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
            ("start a run", f"{server.ui_url}/deployments → reconstruct → Run, or: spaceport run PHOTOS"),
            ("workspace", server.plan.workspace),
            ("pages", server.plan.pages_url or "in the bucket"),
            ("then", "spaceport status · runs · logs RUN · cancel RUN · down"),
        ]
        for name, value in lines:
            console.print(f"[bold]{name:12}[/] {value}", highlight=False, soft_wrap=True)

    @app.command()
    def down() -> None:
        """Stop the Prefect server of this machine, its workers and the pages."""
        from deployments.local_server import take_down

        with saying(console) as say:
            stopped = take_down(Settings.from_environment().home, say)
        console.print(f"stopped {', '.join(stopped)}" if stopped else "nothing was up", highlight=False)


@contextmanager
def saying(console: Console) -> Iterator[Callable[[str], None]]:
    """A line that tells what is being waited for; on a terminal it turns."""
    if not console.is_terminal:
        yield lambda text: console.print(f"{text} …", style="dim", highlight=False)
        return
    with console.status("") as status:
        yield lambda text: status.update(f"{text} …")


def _workspace(named: str | None, settings: Settings) -> str | None:
    """An absolute one, since workers have other working directories; None leaves a running server's as it is."""
    if named is None and running_server(settings.home) is not None:
        return None
    name = settings.workspace if named is None else named
    return name if "://" in name or name.startswith("s3-bucket/") else str(Path(name).expanduser().resolve())


def _stages(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    stages = tuple(stage.strip() for stage in text.split(",") if stage.strip())
    unknown = sorted(set(stages) - set(STAGES))
    if unknown:
        raise OptionsError(f"--dispatch names {', '.join(unknown)}; the stages are {', '.join(STAGES)}.")
    return stages
