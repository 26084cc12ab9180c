"""`spaceport …`: the command line. Exit status 0 done, 2 the input or the command is wrong, 1 anything else."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding

from flows.cli import checks, clean, runs, server
from flows.cli.ending import ending_in_order
from flows.cli.terminal import plain

app = typer.Typer(
    name="spaceport",
    help="Photos go in, a 3D Gaussian splat that opens in any browser comes out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(emoji=False)  # a path may contain an emoji code, such as :car:

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        metavar="draft|standard|high",
        help="How large and long training is: 480, 960 or 1600 px on a CPU, 1600 and more on a GPU; "
        "`spaceport estimate` says how long (default: standard).",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="STAGE.OPTION=VALUE", help="Set one option; `spaceport options` lists them."),
]
WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        envvar="SPACEPORT_WORKSPACE",
        help="Where stage outputs are kept, so that nothing is computed twice: a folder, s3://bucket/folder or "
        "s3-bucket/<block> (default: ./spaceport-data).",
        show_default=False,
    ),
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Compute every stage anew, whatever the workspace holds.")]


@app.command(
    epilog="Examples:  spaceport run flight/  ·  spaceport run flight.zip --out splat --preset draft  ·  "
    "spaceport run flight/ --set train.max_image_size=480 --set compress.sh_degree=0"
)
def run(
    photos: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder or .zip of photos, also as s3://…, or one with a model of COLMAP, nerfstudio or Polycam.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Where the result goes, or s3://… (default: spaceport-out/<capture>)."
        ),
    ] = None,
    preset: PresetOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
) -> None:
    """Turn photos into a splat with a viewer page and a report."""
    from flows.cli.run import run_locally

    run_locally(photos, out, preset, set_ or [], workspace, fresh, console)


@app.command(epilog="Examples:  spaceport estimate flight/  ·  spaceport estimate flight.zip --preset high --json")
def estimate(
    photos: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS",
            help="A folder or .zip of photos, a folder on S3, or one with a model of COLMAP, nerfstudio or Polycam.",
        ),
    ],
    preset: PresetOption = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Also on 1, 4 and 16 GPU instances (default: above 150 photos).")
    ] = False,
) -> None:
    """Say what a run would take: time, memory and price of each stage, here and on AWS, from the photos' headers."""
    from flows.cli.estimate import print_estimate

    print_estimate(photos, preset, set_ or [], workspace, as_json, fleet, console)


@app.command(
    epilog="Examples:  spaceport demo  ·  spaceport demo --photos 800 --extent 300  ·  "
    "spaceport demo --photos 200 --extent 140 --photos-only"
)
def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Where the result goes (default: spaceport-demo…).",
        ),
    ] = None,
    photos: Annotated[
        int | None,
        typer.Option("--photos", metavar="N", help="How many photos the drone takes, 8 to 5000 (default: 36)."),
    ] = None,
    extent: Annotated[
        int | None,
        typer.Option(
            "--extent",
            metavar="M",
            help="Survey a generated town, M metres wide (100 to 1000), with photos of 640 x 480 px.",
        ),
    ] = None,
    photos_only: Annotated[
        bool, typer.Option("--photos-only", help="Only take the photos and write what is true about them.")
    ] = False,
    preset: PresetOption = "draft",
    set_: SetOption = None,
    workspace: WorkspaceOption = None,
    fresh: FreshOption = False,
) -> None:
    """Fly a simulated drone over a generated place and reconstruct it: needs no photos and no network."""
    from flows.cli.demo import run_demo

    run_demo(photos, extent, photos_only, out, preset, set_ or [], workspace, fresh, console)


@app.command()
def options() -> None:
    """List every option that --set takes, with its default, its bounds and what it does."""
    from tasks.core.options import describe_options

    for name, default, allowed, description in describe_options():
        console.print(f"[bold]{plain(name)}[/] = {plain(default)}   [dim]{plain(allowed)}[/]", highlight=False)
        console.print(Padding(plain(description), (0, 0, 0, 4)), highlight=False)


@app.command()
def view(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="The folder that `spaceport run` filled; or a splat: .sog, .ply, meta.json or lod-meta.json, or the "
            "folder of one of these two.",
        ),
    ],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 8080,
) -> None:
    """Serve the viewer page of a result, or a page made for a splat, on this machine until Ctrl-C."""
    from flows.cli.view import view as serve_view

    serve_view(folder, port, console)


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="A splat: .ply, .compressed.ply, .sog, an unbundled SOG's meta.json, a streamed one's lod-meta.json "
            "(its finest level is read), or the folder of one of them.",
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write: .ply, .sog, or meta.json for an unbundled SOG.")
    ],
    drop_invalid: Annotated[
        bool,
        typer.Option("--drop-invalid", help="Leave out Gaussians with numbers that are not finite or no rotation."),
    ] = False,
) -> None:
    """Convert a splat between .ply and SOG, bundled or not."""
    from tasks.core.sog.convert import convert as convert_splat

    converted = convert_splat(source, target, drop_invalid=drop_invalid)
    for note in converted.notes:
        console.print(plain(note), highlight=False, soft_wrap=True)
    console.print(
        f"{plain(target)}: {converted.count:,} Gaussians, {_megabytes(target):.1f} MB; {plain(source)}: "
        f"{_megabytes(source):.1f} MB",
        soft_wrap=True,
    )


def _megabytes(splat: Path) -> float:
    """Size of a file, or of all files in a folder."""
    files = splat.rglob("*") if splat.is_dir() else [splat]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


checks.register(app, console)
server.register(app, console)
runs.register(app, console)
clean.register(app, console)


def main() -> None:
    """Entry point."""
    with ending_in_order():
        app()
