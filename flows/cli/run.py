"""`spaceport run`: the flow in this process, with its progress on the terminal."""

import json
import logging
from pathlib import Path

from rich.console import Console

from flows.cli.connection import ServerOfRun
from flows.cli.terminal import plain
from tasks.core.errors import PhotosError
from tasks.core.options import ReconstructOptions, parse_options
from tasks.core.paths import local_path
from tasks.places.destination import open_destination
from tasks.places.sources import capture_name, is_archive, is_remote_source, local_source
from tasks.places.workspace import open_workspace
from tasks.running.settings import Settings


def run_locally(
    photos: str,
    out: str | None,
    preset: str | None,
    assignments: list[str],
    workspace: str | None,
    fresh: bool,
    console: Console,
) -> None:
    """Check what needs no Prefect, then run the flow. Raises SpaceportError."""
    options = parse_options(preset, assignments)
    settings, server = use_workspace(workspace)

    source = photos if is_remote_source(photos) else str(local_source(photos))
    _refuse_model(source)
    target = out if out is not None else str(Path("spaceport-out") / capture_name(source))
    reconstruct_locally(source, target, options, fresh, settings, server, console)


def use_workspace(workspace: str | None) -> tuple[Settings, ServerOfRun]:
    """Choose settings and server of this process before Prefect is imported. Every stage sees them."""
    settings = Settings()
    if workspace is not None:
        settings = settings.model_copy(update={"workspace": workspace})
    server = ServerOfRun(settings)
    return server.settings, server


def _refuse_model(source: str) -> None:
    """Raise FormatError for a given model that cannot be used. Importing Prefect for the other checks takes longer."""
    from tasks.core.sfm.given_model import read_given
    from tasks.core.sfm.given_places import is_given_model

    if not is_remote_source(source) and is_given_model(local_path(source)):
        read_given(local_path(source))


def _say_estimate(source: str, options: ReconstructOptions, settings: Settings, console: Console) -> None:
    """Print one line before anything is computed; nothing for an archive on S3, whose photos are not known yet."""
    from tasks.core.estimate.machine import usable_cores
    from tasks.core.estimate.run import busy_note, estimate_stages, in_words, section_of
    from tasks.running.estimate import capture_at, machines_of_run

    if is_remote_source(source) and is_archive(source):
        return
    try:
        capture = capture_at(source, settings.workspace, options.photos)
        if not capture.photos:
            return
        words = in_words(section_of(estimate_stages(capture, options, machines_of_run())))
    except PhotosError:
        return  # the photos stage reports what is wrong with them
    except Exception as error:  # noqa: BLE001 - a failed estimate must not end the run
        console.print(f"no estimate: {plain(error)}", style="dim", highlight=False, soft_wrap=True)
        return
    note = busy_note(usable_cores())
    console.print(plain(" ".join(filter(None, [words + ".", note]))), highlight=False, soft_wrap=True)


def reconstruct_locally(
    source: str,
    target: str,
    options: ReconstructOptions,
    fresh: bool,
    settings: Settings,
    server: ServerOfRun,
    console: Console,
) -> None:
    """Check the run, say what it will take, run the flow and print its result. Raises SpaceportError."""
    from flows.cli.terminal import showing_progress
    from tasks.running.preflight import check_run, note_on

    # The flow makes the same checks; here they need no Prefect, so an error appears within a second.
    check_run(source, target, options, settings.absolute_workspace)
    if note := note_on(source):
        console.print(f"[yellow]note[/] {plain(note)}", highlight=False, soft_wrap=True)
    _say_estimate(source, options, settings, console)

    def say(text: str) -> None:
        console.print(plain(text), style="dim", highlight=False, soft_wrap=True)

    # Lines that do not reach the server are in the stage's own log. The terminal would show an error for each of them.
    logging.raiseExceptions = False
    with server.running(say):
        from prefect import tags
        from prefect.client.orchestration import get_client

        from flows.cli.flow_runs import end_abandoned, known_here
        from flows.reconstruct import reconstruct

        with get_client(sync_client=True) as client:
            end_abandoned(client, settings.home)
        with showing_progress(console), tags("spaceport"):
            publication = known_here(reconstruct, settings.home)(source, target, options, fresh)
    destination = open_destination(target, open_workspace(settings.absolute_workspace))
    report = json.loads(destination.read("report.json"))
    quality = "not measured" if publication.psnr_db is None else f"{publication.psnr_db:.2f} dB"
    detail = "" if publication.detail is None else f", {publication.detail:.0%} of the photos' detail"
    estimate = report["estimate"]
    expected = "" if estimate is None else f", {estimate['seconds']['total']:.0f} expected"
    console.print(
        f"[bold green]done[/] in {report['seconds']['total']:.0f} s{plain(expected)}: "
        f"{report['sfm']['registered']:d} photos registered, "
        f"{publication.num_gaussians:,} Gaussians, held-out PSNR {plain(quality)}{plain(detail)}, "
        f"{publication.sog_bytes / 1e6:.1f} MB",
        highlight=False,
        soft_wrap=True,
    )
    for degradation in publication.degradations:
        console.print(f"[yellow]note[/] {plain(degradation)}", highlight=False)
    console.print(f"open   {plain(publication.page)}", highlight=False, soft_wrap=True)
    console.print(f"report {plain(publication.report)}", highlight=False, soft_wrap=True)
