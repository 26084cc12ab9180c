"""`spaceport clean`: remove what a workspace no longer needs."""

from collections import Counter
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.terminal import plain
from tasks.core.errors import OptionsError
from tasks.core.paths import local_path
from tasks.core.storage.cleaning import down_to, items, removable, remove, unfinished
from tasks.running.settings import Settings

DAY_SECONDS = 24 * 3600.0


def register(app: typer.Typer, console: Console) -> None:
    """Add the command to the command line."""

    @app.command(
        epilog="Examples:  spaceport clean  ·  spaceport clean --older-than 7 --yes  ·  spaceport clean --keep-gb 50"
    )
    def clean(
        older_than: Annotated[
            float, typer.Option(metavar="DAYS", help="Remove what was last written so long ago.", min=1)
        ] = 30,
        keep_gb: Annotated[
            float | None,
            typer.Option(metavar="GB", help="Instead: remove the oldest until the workspace is so large.", min=0),
        ] = None,
        results: Annotated[
            bool, typer.Option("--results", help="Remove published results in the workspace as well.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Remove; otherwise only say what would be removed.")] = False,
        workspace: Annotated[
            str | None,
            typer.Option("--workspace", "-w", metavar="DIR", envvar="SPACEPORT_WORKSPACE", help="Which workspace."),
        ] = None,
    ) -> None:
        """Remove stage outputs, checkpoints and folders of ended runs that no kept run needs.

        Nothing younger than a day is removed, and no result unless --results says so. Results at a destination
        of your own are not looked at, nor is Prefect's list of runs: `spaceport up --keep-days` says how long that is.
        """
        settings = Settings()
        if workspace is not None:
            settings = settings.model_copy(update={"workspace": workspace})
        name = settings.absolute_workspace
        if "://" in name or name.startswith("s3-bucket/"):
            raise OptionsError(f"{name} is on S3, where a lifecycle rule of the bucket removes what is old.")
        root = local_path(name)
        found = items(root)
        chosen = (
            removable(found, older_than * DAY_SECONDS, results=results)
            if keep_gb is None
            else down_to(found, int(keep_gb * 1e9), results=results)
        )
        total = sum(item.size_bytes for item in found)
        for item in chosen:
            line = f"{item.size_bytes / 1e6:10.1f} MB  {item.kind:11} {item.path.relative_to(root)}"
            console.print(plain(line), highlight=False, soft_wrap=True)
            if yes:
                remove(item.path)
        if yes:
            for path in unfinished(root):  # left by a cleaning that was interrupted
                remove(path)
        freed = sum(item.size_bytes for item in chosen)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(item.kind for item in chosen).items()))
        says = "removed" if yes else "would be removed"
        summary = f"{freed / 1e9:.2f} of {total / 1e9:.2f} GB {says}" + (f": {kinds}" if kinds else "")
        console.print(plain(f"{summary}  ({root})"), highlight=False, soft_wrap=True)
        if chosen and not yes:
            console.print("nothing was touched; --yes removes it", highlight=False)
