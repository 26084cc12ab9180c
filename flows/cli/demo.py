"""`spaceport demo`: a simulated flight over a generated place, and its reconstruction."""

import shutil
import tempfile
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from flows.cli.run import reconstruct_locally, use_workspace
from flows.cli.terminal import plain
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.errors import OptionsError
from tasks.core.options import parse_options
from tasks.core.paths import local_path
from tasks.places.workspace import is_remote

DEMO_PHOTOS = "demo"


def run_demo(
    photos: int | None,
    extent_m: int | None,
    photos_only: bool,
    out: Path | None,
    preset: str | None,
    assignments: list[str],
    workspace: str | None,
    fresh: bool,
    console: Console,
) -> None:
    """Photograph the generated place, unless its photos exist already, and reconstruct it. Raises SpaceportError."""
    options = parse_options(preset, assignments)
    flight = flight_options(photos, extent_m)
    settings, server = use_workspace(workspace)

    # Photos are generated on this machine, even if stage outputs are stored elsewhere.
    root = settings.home if is_remote(settings.workspace) else local_path(settings.workspace).resolve()
    folder = root / DEMO_PHOTOS / f"drone-demo{_numbers(flight)}"
    if fresh or not folder.is_dir():
        _photograph(folder, flight, console)
    if photos_only:
        _say_where(folder, console)
        return
    target = out or Path(f"spaceport-demo{_numbers(flight)}")
    reconstruct_locally(str(folder), str(target), options, fresh, settings, server, console)


def flight_options(photos: int | None, extent_m: int | None) -> DemoOptions:
    """The flight that was asked for. Raises OptionsError that names the option and its bound."""
    given = {"photos": photos, "extent_m": extent_m}
    try:
        return DemoOptions.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = "--photos" if first["loc"] == ("photos",) else "--extent"
        value = photos if named == "--photos" else extent_m
        raise OptionsError(f"{named} {value}: {first['msg'].removeprefix('Value error, ').lower()}.") from error


def _numbers(flight: DemoOptions) -> str:
    """What the names of a flight's folders end with: nothing for the standard flight."""
    photos = "" if flight.photos == DemoOptions().photos and not flight.extent_m else f"-{flight.photos}-photos"
    return f"{photos}-{flight.extent_m}-m" if flight.extent_m else photos


def _photograph(photos: Path, flight: DemoOptions, console: Console) -> None:
    """Fly over the generated place; the folder of photos appears when it is complete."""
    from flows.cli.terminal import showing_progress
    from tasks.core.demo.flight import fly
    from tasks.reporting.progress import stage_progress

    photos.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=photos.parent) as folder, showing_progress(console):
        fly(Path(folder) / photos.name, flight, stage_progress("demo"))
        # The folder is moved last: a command that finds it finds the files beside it too.
        for entry in sorted(Path(folder).iterdir(), key=Path.is_dir):
            place = photos.parent / entry.name
            if place.is_dir():
                shutil.rmtree(place)
            entry.replace(place)


def _say_where(photos: Path, console: Console) -> None:
    """Print where the photos and the truth about them are."""
    from tasks.core.demo.flight import ground_truth_path
    from tasks.core.demo.heights import heights_path

    for name, place in (("photos ", photos), ("cameras", ground_truth_path(photos)), ("heights", heights_path(photos))):
        if place.exists():
            console.print(plain(f"{name} {place}"), highlight=False, soft_wrap=True)
