"""`spaceport estimate PHOTOS`: time, memory and price of a run here and in an AWS account, as tables or as JSON."""

import json

import typer
from pydantic import JsonValue
from rich.console import Console

from deployments.aws.runtime.estimate import AwsEstimate, estimate_on_aws
from deployments.aws.runtime.fleet import WORTH_A_FLEET, AwsFleet, estimate_on_fleet
from deployments.aws.runtime.jobs import PRICES_DATE, PRICES_REGION
from flows.cli.prefect_variables import configure_prefect
from flows.cli.terminal import lines_of_cells, plain
from tasks.core.errors import PhotosError
from tasks.core.estimate.machine import usable_cores
from tasks.core.estimate.run import StageEstimate, busy_note, estimate_stages, section_of
from tasks.core.estimate.stages import Capture, expected_options
from tasks.core.options import parse_options
from tasks.core.words import dollars, gigabytes, rough_duration
from tasks.running.settings import Settings, use_settings

NUMBERS = (1, 2, 3, 4)  # columns


def print_estimate(
    photos: str,
    preset: str | None,
    assignments: list[str],
    workspace: str | None,
    as_json: bool,
    on_fleet: bool,
    console: Console,
) -> None:
    """Read the photos' headers and print the estimate; that of a fleet if asked for, or if there are many photos.

    Raises OptionsError, or PhotosError if there are no photos.
    """
    options = parse_options(preset, assignments)
    settings = use_settings(Settings())
    configure_prefect(settings)
    from tasks.running.estimate import capture_at, machines_of_run

    capture = capture_at(photos, workspace or settings.workspace, options.photos)
    if not capture.photos:
        raise PhotosError(f"No photo in {photos} has a header that can be read: give JPEG, PNG, HEIC, WebP or TIFF.")
    machines = machines_of_run()
    train = expected_options(capture, options, machines["train"])
    here = estimate_stages(capture, options, machines)
    aws = estimate_on_aws(capture, options)
    wanted = on_fleet or len(capture.photos) > WORTH_A_FLEET
    fleet = estimate_on_fleet(capture, options) if wanted else None
    if as_json:
        typer.echo(json.dumps(_as_json(capture, options.with_train(train).spelled_out(), here, aws, fleet), indent=1))
        return
    console.print(
        f"{len(capture.photos)} photos, {capture.megapixels:.0f} megapixels; preset {plain(options.preset)}: "
        f"{train.max_image_size:d} px, {train.steps:,} steps, at most {train.max_gaussians:,} Gaussians",
        highlight=False,
        soft_wrap=True,
    )
    _print_here(here, console)
    _print_aws(aws, console)
    if fleet is not None:
        _print_fleet(fleet, console)


def _print_here(stages: tuple[StageEstimate, ...], console: Console) -> None:
    section = section_of(stages)
    cores = usable_cores()
    console.print(f"\n[bold]This machine[/], {cores:g} cores", highlight=False)
    priced = section.cost_usd.total is not None
    rows = [
        (each.stage, rough_duration(each.seconds), gigabytes(each.peak_memory_bytes), dollars(each.cost_usd))
        for each in stages
    ]
    total = rough_duration(section.seconds.total or 0.0)
    rows.append(("in all", total, gigabytes(section.peak_memory_bytes), dollars(section.cost_usd.total)))
    rows = [("stage", "time", "peak memory", "price"), *rows]
    _print_table([row if priced else row[:-1] for row in rows], console)
    note = busy_note(cores)
    if note is not None:
        console.print(f"[yellow]note[/] {plain(note)}", highlight=False, soft_wrap=True)


def _print_aws(aws: AwsEstimate, console: Console) -> None:
    prices_of = f"{PRICES_REGION}, prices of {PRICES_DATE}, start-up of machines included"
    console.print(f"\n[bold]AWS[/], {plain(prices_of)}", highlight=False)
    rows: list[tuple[str, ...]] = [("task", "time", "peak memory", "on demand", "spot", "where")]
    for each in aws.stages:
        prices = dollars(each.on_demand_usd), dollars(each.spot_usd)
        memory = gigabytes(each.peak_memory_bytes)
        rows.append((each.stage, rough_duration(each.seconds), memory, *prices, each.where))
    rows.append(("in all", rough_duration(aws.seconds), "", dollars(aws.on_demand_usd), dollars(aws.spot_usd), ""))
    _print_table(rows, console)
    for note in aws.notes:
        console.print(f"[dim]{plain(note)}[/]", highlight=False, soft_wrap=True)


def _print_fleet(fleet: AwsFleet, console: Console) -> None:
    console.print(f"\n[bold]On a fleet[/] of {plain(fleet.gpu)}, cells of training: {fleet.cells:d}", highlight=False)
    rows: list[tuple[str, ...]] = [("instances", "time", "10 to 90 % of runs", "price", "10 to 90 % of runs")]
    for row in fleet.rows:
        times = (rough_duration(each) for each in (row.seconds, row.seconds_p10, row.seconds_p90))
        prices = (dollars(each) for each in (row.cost_usd, row.cost_usd_p10, row.cost_usd_p90))
        (time, *time_range), (price, *price_range) = times, prices
        rows.append((f"{row.instances}", time, " to ".join(time_range), price, " to ".join(price_range)))
    _print_table(rows, console, has_sum=False)
    for note in fleet.notes:
        console.print(f"[dim]{plain(note)}[/]", highlight=False, soft_wrap=True)


def _print_table(rows: list[tuple[str, ...]], console: Console, *, has_sum: bool = True) -> None:
    """Print rows whose first is the headings and, with `has_sum`, whose last is the sum."""
    lines = lines_of_cells(rows, NUMBERS)
    for i, line in enumerate(lines):
        style = "bold" if i == 0 or (has_sum and i == len(lines) - 1) else None
        console.print(plain(f"  {line}"), style=style, highlight=False, soft_wrap=True)


def _as_json(
    capture: Capture,
    options: dict[str, JsonValue],
    here: tuple[StageEstimate, ...],
    aws: AwsEstimate,
    fleet: AwsFleet | None,
) -> dict[str, object]:
    section = section_of(here)
    return {
        "photos": len(capture.photos),
        "megapixels": round(capture.megapixels, 3),
        "options": options,
        "this_machine": {
            "cores": usable_cores(),
            "stages": [stage.model_dump() for stage in here],
            "seconds": section.seconds.total,
            "peak_memory_bytes": section.peak_memory_bytes,
            "cost_usd": section.cost_usd.total,
        },
        "aws": aws.model_dump(mode="json"),
        "fleet": None if fleet is None else fleet.model_dump(mode="json"),
    }
