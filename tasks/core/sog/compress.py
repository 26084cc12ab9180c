"""The compress stage: write trained Gaussians as scene.sog, and measure the loss of quality on the held-out views."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.core.gaussians import Gaussians
from tasks.core.measurements import SogSection, held_out_picture
from tasks.core.ply import read_ply
from tasks.core.progress import Progress, ProgressCallback, ignore_progress
from tasks.core.render.interface import Rasterizer
from tasks.core.render.metrics import psnr
from tasks.core.scene import Camera, Scene
from tasks.core.sog.layout import LOD_FOLDER
from tasks.core.sog.options import LADDER, CompressOptions
from tasks.core.sog.reader import read_sog
from tasks.core.sog.writer import write_sog

SOG_FILE = "scene.sog"
HELD_OUT_FOLDER = "held_out"
_JPEG_QUALITY = 92


def compress(
    gaussians_ply: Path,
    scene: Scene,
    held_out: Sequence[str],
    out: Path,
    options: CompressOptions,
    rasterizer: Rasterizer,
    on_progress: ProgressCallback = ignore_progress,
) -> SogSection:
    """Write `scene.sog` and `held_out/<camera>.render.jpg`, pictures of the decoded .sog, into the folder `out`.

    held_out: names of the cameras that quality was measured on; training may have used their photos since. The loss is
    the mean over them of PSNR(.ply) minus PSNR(decoded .sog), both against the photo; null without held-out views.
    Numbers are stored more finely, rung by rung of LADDER, until the loss is within `options.max_psnr_drop_db`. A file
    that loses more on the last rung is reported as a degradation. Raises FormatError as `write_sog`.
    """
    gaussians = read_ply(gaussians_ply)
    sog = out / SOG_FILE
    cameras = {camera.name: camera for camera in scene.cameras}

    def measured_db(name: str, render: NDArray[np.floating]) -> float:
        # the photo is read again each time: a large capture has hundreds held out, which memory could not hold
        photo = scene.image(cameras[name]).astype(np.float32) / 255
        return psnr(render, photo, ~scene.hidden[name] if name in scene.hidden else None)

    before_db = {name: measured_db(name, _render(rasterizer, gaussians, cameras[name])) for name in held_out}
    pictures = out / HELD_OUT_FOLDER
    pictures.mkdir(exist_ok=True)

    for rung, precision in enumerate(LADDER):
        report = _part_of(on_progress, rung, len(LADDER))
        write_sog(gaussians, sog, options, _part_of(report, 0, 2), precision)
        decoded = read_sog(sog)  # from the file, as a viewer reads it
        drops_db: list[float] = []
        for done, name in enumerate(held_out, start=1):
            after = _render(rasterizer, decoded, cameras[name])
            _save(after, pictures / held_out_picture(name))
            drops_db.append(before_db[name] - measured_db(name, after))
            _part_of(report, 1, 2)(Progress(done, len(held_out), f"measured {done}/{len(held_out)} held-out views"))
        drop_db = float(np.mean(drops_db)) if drops_db else None
        degradations = _too_lossy(drop_db, options.max_psnr_drop_db)
        if not degradations:
            break
    streamed_bytes = None
    if len(gaussians) > options.stream_above:
        from tasks.core.sog.streamed import write_streamed  # scipy's rotations take a while to load

        streamed_bytes = write_streamed(gaussians, out / LOD_FOLDER, options, precision=precision)
    lost = "not measured" if drop_db is None else f"{drop_db:.2f} dB lost"
    on_progress(Progress(1, 1, f"{sog.stat().st_size / 1e6:.1f} MB, {lost}"))
    return SogSection(
        bytes=sog.stat().st_size,
        ply_bytes=gaussians_ply.stat().st_size,
        psnr_drop_db=drop_db,
        sh_bands=decoded.sh_degree,
        streamed_bytes=streamed_bytes,
        degradations=degradations,
    )


def _too_lossy(drop_db: float | None, limit_db: float) -> tuple[str, ...]:
    if drop_db is None or drop_db <= limit_db:
        return ()
    return (f"scene.sog loses {drop_db:.2f} dB against the .ply; compress.max_psnr_drop_db is {limit_db:g}",)


def _part_of(on_progress: ProgressCallback, part: int, parts: int) -> ProgressCallback:
    """A callback that maps 0 to 1 to the given part of the whole; it stays below 1, as more parts may follow."""
    return lambda p: on_progress(Progress((part + 0.999 * p.done / max(p.total, 1)) / parts, 1, p.note))


def _render(rasterizer: Rasterizer, gaussians: Gaussians, camera: Camera) -> NDArray[np.float32]:
    """The image as a screen shows it, clipped to 0..1. A copy, because a rasterizer may reuse its buffer."""
    return np.clip(rasterizer.render(gaussians, camera), 0, 1)


def _save(image: NDArray[np.float32], path: Path) -> None:
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path, quality=_JPEG_QUALITY)
