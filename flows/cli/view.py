"""`spaceport view`: a result's page, or a page made for a splat that has none."""

import json
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console

from flows.cli.terminal import plain
from tasks.core.safe_names import DAMAGED_ZIP
from tasks.core.sog.layout import LOD_FOLDER, LOD_META_FILE, META_FILE, is_lod_meta
from tasks.core.sog.writer import GENERATOR, write_sog
from tasks.core.transforms import Float64
from tasks.core.viewer.serve import serve
from tasks.places.result_files import CONTENTS_FILE, PAGE_FILE, SPLAT_FILE, STREAM_PAGE_FILE

_Z_UP, _Y_DOWN = np.array([0.0, 0.0, 1.0]), np.array([0.0, -1.0, 0.0])  # ours; the 3DGS paper's code and most others


def view(place: Path, port: int, console: Console) -> None:
    """Serve a page until Ctrl-C. Raises InputError and FormatError."""
    with folder_with_page(place) as (folder, page), serve(folder, port, page) as url:
        console.print(f"{plain(url)}{plain(page) if page != PAGE_FILE else ''}  (Ctrl-C ends)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            console.print("ended")


@contextmanager
def folder_with_page(place: Path) -> Iterator[tuple[Path, str]]:
    """The folder to serve, and its page.

    The levels of detail of a result have a page in the folder above. For any other splat one is made, in a temporary
    folder.
    """
    folder = place.parent if is_lod_meta(place) else place
    above = folder.resolve().parent
    if folder.name == LOD_FOLDER and (above / CONTENTS_FILE).is_file() and (above / STREAM_PAGE_FILE).is_file():
        yield above, STREAM_PAGE_FILE
    elif place.is_file() or (not (place / PAGE_FILE).exists() and _has_splat(place)):
        with tempfile.TemporaryDirectory() as made:
            _make_page(place, Path(made))
            yield Path(made), PAGE_FILE
    else:
        yield place, PAGE_FILE


def _has_splat(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (META_FILE, LOD_META_FILE))


def _make_page(place: Path, folder: Path) -> None:
    """Write a page that contains the splat. Raises FormatError."""
    from tasks.core.sog.convert import read_splat
    from tasks.core.viewer.page import view_without_cameras, write_page

    splat = read_splat(place)
    write_sog(splat.gaussians, folder / SPLAT_FILE, model=splat.model)
    settings = view_without_cameras(splat.gaussians.means, place.resolve().name, _up(place))
    write_page(folder / SPLAT_FILE, folder / PAGE_FILE, settings, report=None)


def _up(place: Path) -> Float64:
    """Where the sky is: a splat does not say, but ours name their writer."""
    return _Z_UP if _generator(place) == GENERATOR else _Y_DOWN


def _generator(place: Path) -> str | None:
    """The program that wrote a SOG, if it says so."""
    try:
        if place.suffix.lower() == ".sog":
            with zipfile.ZipFile(place) as bundle:
                content = bundle.read(META_FILE)
        else:
            names = [place] if place.is_file() else [place / META_FILE, place / LOD_META_FILE]
            content = next(name for name in names if name.is_file()).read_bytes()
        generator = json.loads(content)["asset"]["generator"]
    except (*DAMAGED_ZIP, OSError, KeyError, TypeError, StopIteration):
        return None
    return str(generator)
