"""report.html: all that a run measured, for people, in one file."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from tasks.core.errors import StorageError
from tasks.core.image_file import open_image
from tasks.core.measurements import Report, held_out_picture
from tasks.core.report.charts import camera_map, cell_map, quality_curve
from tasks.core.report.divided_scene import DividedScene
from tasks.core.scene import Scene
from tasks.core.stages import STAGES

MAX_VIEWS = 12  # pairs of pictures; more would make the page heavy and teach nothing new
_PICTURE_WIDTH_PX = 640
_JPEG_QUALITY = 82
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class ViewPair:
    """A held-out photo and what the splat shows from there."""

    name: str
    psnr_db: float | None
    detail: float | None
    photo: str  # data URLs
    render: str


def write_report(
    report: Report,
    scene: Scene,
    held_out_renders: Path,
    target: Path,
    fly_around: Path | None = None,
    cells: DividedScene | None = None,
) -> None:
    """Write report.html, which holds all its pictures and asks no network.

    fly_around: an animated WebP of the splat.
    cells: the plan of a training in cells.
    held_out_renders: the folder with `<camera, / as __>.render.jpg` for each of report.train.eval_views. Raises
    StorageError when one of them is missing.
    """
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.filters |= {
        "decimals": decimals,
        "percent": percent,
        "count": count,
        "megabytes": megabytes,
        "duration": duration,
        "moment": moment,
    }
    georeference = report.sfm.georeference
    chosen = evenly_chosen(len(report.train.eval_views), MAX_VIEWS)
    page = environment.get_template("report.html.j2").render(
        report=report,
        fly_around=None if fly_around is None else _as_data_url(fly_around.read_bytes(), "webp"),
        pairs=[_pair(report, scene, held_out_renders, i) for i in chosen],
        views_left_out=len(report.train.eval_views) - len(chosen),
        curve=quality_curve(report.train.curve) if report.train.curve else None,
        cell_map=None if cells is None else cell_map(scene, cells),
        camera_map=camera_map(scene, report.train.eval_views, report.sfm.left_out),
        stages=[
            (name, getattr(report.seconds, name), name in report.cache_hits, _expected(report, name)) for name in STAGES
        ],
        expected_in_all=_expected(report, "total"),
        longest=max((getattr(report.seconds, name) or 0.0 for name in STAGES), default=0.0),
        options=list(_flat(report.options)),
        median_m=None if georeference is None else georeference.residual_median_m,
    )
    target.write_text(page, encoding="utf-8")


def _expected(report: Report, stage: str) -> float | None:
    return None if report.estimate is None else getattr(report.estimate.seconds, stage)


def decimals(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number with a unit, or that it was not measured. The space before the unit does not break."""
    return NOT_MEASURED if value is None else f"{value:.{digits}f}" + (f"\u00a0{unit}" if unit else "")


def percent(value: float | None) -> str:
    """A share as whole percent."""
    return NOT_MEASURED if value is None else f"{value:.0%}".replace("%", "\u00a0%")


def count(value: int | None) -> str:
    """A count with thin spaces between thousands."""
    return NOT_MEASURED if value is None else f"{value:,}".replace(",", "\u202f")


def megabytes(value: int | None) -> str:
    """Bytes as MB (10^6 bytes) or GB, with as many digits as say something."""
    if value is None:
        return NOT_MEASURED
    if value >= 1e9:
        return f"{value / 1e9:.2f}\u00a0GB"
    return f"{value / 1e6:.{2 if value < 1e7 else 1 if value < 1e8 else 0}f}\u00a0MB"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 60:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"


def moment(iso: str) -> str:
    """An ISO 8601 moment as a date and time in UTC."""
    return datetime.fromisoformat(iso).strftime("%-d %B %Y, %H:%M UTC")


def evenly_chosen(available: int, wanted: int) -> list[int]:
    """At most `wanted` of `available` positions, evenly spread, first and last included."""
    if available <= wanted:
        return list(range(available))
    return [int(i) for i in np.rint(np.linspace(0, available - 1, wanted))]


def _pair(report: Report, scene: Scene, renders: Path, index: int) -> ViewPair:
    name = report.train.eval_views[index]
    camera = next(camera for camera in scene.cameras if camera.name == name)
    path = renders / held_out_picture(name)
    try:
        with open_image(path) as image:
            render = image.convert("RGB")
    except OSError as error:
        raise StorageError(
            f"{path.name}, the picture of a held-out view, cannot be read; run compress again."
        ) from error
    psnrs, details = report.train.eval_psnr_db, report.train.eval_detail
    return ViewPair(
        name=name,
        psnr_db=psnrs[index] if index < len(psnrs) else None,
        detail=details[index] if index < len(details) else None,
        photo=_data_url(Image.fromarray(scene.image(camera))),
        render=_data_url(render),
    )


def _data_url(image: Image.Image) -> str:
    if image.width > _PICTURE_WIDTH_PX:
        height = round(image.height * _PICTURE_WIDTH_PX / image.width)
        image = image.resize((_PICTURE_WIDTH_PX, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return _as_data_url(buffer.getvalue(), "jpeg")


def _as_data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def _flat(options: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested options as dotted names, as `--set` takes them."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
