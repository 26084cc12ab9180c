"""The compress stage: trained Gaussians become scene.sog, and what that costs is measured on the held-out views."""

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
from tasks.core.sog.options import CompressOptions
from tasks.core.sog.reader import read_sog
from tasks.core.sog.writer import write_sog

SOG_FILE = "scene.sog"
HELD_OUT_FOLDER = "held_out"
_WRITING_SHARE = 0.5  # of the progress bar; the rest is rendering
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

    held_out: names of the cameras that training did not see. The loss is the mean over them of PSNR(.ply) minus
    PSNR(decoded .sog), both against the photo; null without held-out views. Raises FormatError as `write_sog`.
    """
    gaussians = read_ply(gaussians_ply)
    sog = out / SOG_FILE
    write_sog(
        gaussians, sog, options, lambda p: on_progress(Progress(_WRITING_SHARE * p.done / max(p.total, 1), 1, p.note))
    )
    decoded = read_sog(sog)  # from the file: what a viewer sees, not what the writer meant
    cameras = {camera.name: camera for camera in scene.cameras}
    pictures = out / HELD_OUT_FOLDER
    pictures.mkdir(exist_ok=True)
    drops_db: list[float] = []
    for done, name in enumerate(held_out, start=1):
        photo = scene.image(cameras[name]).astype(np.float32) / 255
        before, after = (_render(rasterizer, which, cameras[name]) for which in (gaussians, decoded))
        _save(after, pictures / held_out_picture(name))
        drops_db.append(psnr(before, photo) - psnr(after, photo))
        share = _WRITING_SHARE + (1 - _WRITING_SHARE) * done / len(held_out)
        on_progress(Progress(share, 1, f"measured {done}/{len(held_out)} held-out views"))
    return SogSection(
        bytes=sog.stat().st_size,
        ply_bytes=gaussians_ply.stat().st_size,
        psnr_drop_db=float(np.mean(drops_db)) if drops_db else None,
        sh_bands=decoded.sh_degree,
    )


def _render(rasterizer: Rasterizer, gaussians: Gaussians, camera: Camera) -> NDArray[np.float32]:
    """What a screen shows: clipped to 0..1. A copy, because a rasterizer may use its buffer again."""
    return np.clip(rasterizer.render(gaussians, camera), 0, 1)


def _save(image: NDArray[np.float32], path: Path) -> None:
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path, quality=_JPEG_QUALITY)
