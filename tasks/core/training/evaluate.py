"""Quality on photos that training has not seen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.gaussians import Gaussians
from tasks.core.render.interface import Image, Rasterizer
from tasks.core.render.metrics import SSIM_WINDOW, Mask, color_corrected, detail, gmsd, psnr, ssim
from tasks.core.training.views import View

Pixels = NDArray[np.floating]


@dataclass(frozen=True)
class Quality:
    """How close a render is to its photo; see tasks/core/render/metrics.py. NaN is what could not be measured."""

    psnr_db: float
    ssim: float
    gmsd: float
    detail: float

    @classmethod
    def of(cls, image: Pixels, photo: Pixels, mask: Mask | None = None) -> "Quality":
        """Compare two images [H, W, 3] in 0..1, over all pixels or those of the mask [H, W]."""
        smallest = min(photo.shape[:2])
        if mask is not None and not mask.any():
            return cls(*[math.nan] * 4)
        return cls(
            psnr_db=psnr(image, photo, mask),
            ssim=ssim(image, photo, mask) if smallest >= SSIM_WINDOW else math.nan,
            gmsd=gmsd(image, photo, mask) if smallest >= 2 else math.nan,
            detail=detail(image, photo, mask),
        )


@dataclass(frozen=True)
class Evaluation:
    """PSNR of every view in dB; where it was asked for, everything else as well."""

    psnr_db: tuple[float, ...]
    color_corrected_psnr_db: tuple[float, ...]
    qualities: tuple[Quality, ...]  # over all pixels of each view
    covered: tuple[Quality, ...]  # over those that several other photos see
    covered_share: float | None  # of all pixels of all views
    first_image: Image | None  # the render of the first view, for people to look at; None without views

    @property
    def mean_psnr_db(self) -> float:
        """Mean over views of each view's PSNR (not PSNR of the mean error), as the papers report it."""
        return float(np.mean(self.psnr_db))


def evaluate(gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer) -> Evaluation:
    """Render every view at full size on black and take its PSNR."""
    return _evaluated(gaussians, views, rasterizer, (), complete=False)


def evaluate_completely(
    gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, covered: Sequence[Mask]
) -> Evaluation:
    """As `evaluate`, and all other measures; `covered` is each view's mask of `covered_pixels`."""
    return _evaluated(gaussians, views, rasterizer, covered, complete=True)


def mean_of(qualities: Sequence[Quality], measure: Callable[[Quality], float]) -> float | None:
    """Mean of a measure over the views that have it; None when none has."""
    values = [value for value in map(measure, qualities) if not math.isnan(value)]
    return float(np.mean(values)) if values else None


def _evaluated(
    gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, covered: Sequence[Mask], *, complete: bool
) -> Evaluation:
    images = (rasterizer.render(gaussians, view.cameras[0]) for view in views)
    psnrs, corrected, qualities, of_covered = [], [], [], []
    first_image = None
    for index, (view, image) in enumerate(zip(views, images, strict=True)):
        first_image = image if first_image is None else first_image
        photo = view.photos[0] / np.float32(255)
        if not complete:
            psnrs.append(psnr(image, photo))
            continue
        qualities.append(Quality.of(image, photo))
        psnrs.append(qualities[-1].psnr_db)
        of_covered.append(Quality.of(image, photo, covered[index]))
        corrected.append(psnr(color_corrected(image, photo), photo))
    share = float(np.concatenate([mask.ravel() for mask in covered]).mean()) if len(covered) else None
    return Evaluation(tuple(psnrs), tuple(corrected), tuple(qualities), tuple(of_covered), share, first_image)
