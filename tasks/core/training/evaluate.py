"""Quality on photos that training never sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import Image, Rasterizer
from tasks.core.render.metrics import SSIM_WINDOW, color_corrected, psnr, ssim
from tasks.core.training.views import View


@dataclass(frozen=True)
class Evaluation:
    """PSNR of every view in dB; where it was asked for, SSIM and the PSNR of the color-corrected render as well."""

    psnr_db: tuple[float, ...]
    ssim: tuple[float, ...]
    color_corrected_psnr_db: tuple[float, ...]
    first_image: Image | None  # the render of the first view, for people to look at; None without views

    @property
    def mean_psnr_db(self) -> float:
        """Mean over views of each view's PSNR (not PSNR of the mean error), as the papers report it."""
        return float(np.mean(self.psnr_db))


def evaluate(gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, complete: bool = False) -> Evaluation:
    """Render every view at full size on black and compare it with its photo."""
    psnrs, ssims, corrected = [], [], []
    first_image = None
    for view in views:
        image = rasterizer.render(gaussians, view.cameras[0])
        if first_image is None:
            first_image = image
        photo = view.photos[0] / np.float32(255)
        psnrs.append(psnr(image, photo))
        if complete:
            corrected.append(psnr(color_corrected(image, photo), photo))
        if complete and min(photo.shape[:2]) >= SSIM_WINDOW:
            ssims.append(ssim(image, photo))
    return Evaluation(tuple(psnrs), tuple(ssims), tuple(corrected), first_image)
