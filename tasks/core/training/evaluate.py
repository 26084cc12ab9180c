"""Measure quality on photos, and find the Gaussians that can be left out at the end at almost no loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import TrainingDivergedError
from tasks.core.gaussians import SH_C0, Gaussians
from tasks.core.render.interface import MIN_ALPHA, Float, Image, Rasterizer
from tasks.core.render.metrics import SSIM_WINDOW, Mask, color_corrected, detail, gmsd, psnr, ssim
from tasks.core.training.views import View, evenly_chosen

Pixels = NDArray[np.floating]

JUDGED_VIEWS = 12  # photos, at most, on which the loss is measured
FEW_VIEWS = 60  # photos, at most, whose contributions are counted at full size; of more, at half of it
PRUNE_HALVINGS = 7  # of the interval that contains the number to leave out: exact to 1 %
MOST_PRUNED = 0.9  # share of the Gaussians


@dataclass(frozen=True)
class Quality:
    """Measures of a render compared with its photo: tasks/core/render/metrics.py. NaN for undefined ones."""

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
    """PSNR of every view in dB; all other measures too if the evaluation was complete."""

    psnr_db: tuple[float, ...]
    color_corrected_psnr_db: tuple[float, ...]
    qualities: tuple[Quality, ...]  # over all pixels of each view that show the place
    covered: tuple[Quality, ...]  # over the pixels of each view that several other photos see
    covered_share: float | None  # of all pixels of all views
    first_image: Image | None  # the render of the first view, for people to look at; None without views

    @property
    def mean_psnr_db(self) -> float:
        """Mean over views of each view's PSNR (not PSNR of the mean error), as the papers report it."""
        return float(np.mean(self.psnr_db))


def evaluate(gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer) -> Evaluation:
    """Render every view at full size on black and take its PSNR over the pixels that show the place."""
    return _evaluated(gaussians, views, rasterizer, (), complete=False)


def evaluate_completely(
    gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, covered: Sequence[Mask]
) -> Evaluation:
    """Like `evaluate`, with all other measures; `covered` is each view's mask of `covered_pixels`."""
    return _evaluated(gaussians, views, rasterizer, covered, complete=True)


def mean_of(qualities: Sequence[Quality], measure: Callable[[Quality], float]) -> float | None:
    """Mean of a measure over the views where it is defined; None if there is no such view."""
    return mean_of_defined([measure(quality) for quality in qualities])


def mean_of_defined(values: Sequence[float]) -> float | None:
    """The mean of the values that are not NaN; None if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else None


def _evaluated(
    gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, covered: Sequence[Mask], *, complete: bool
) -> Evaluation:
    images = (rasterizer.render(gaussians, view.cameras[0]) for view in views)
    psnrs, corrected, qualities, of_covered = [], [], [], []
    first_image = None
    for index, (view, image) in enumerate(zip(views, images, strict=True)):
        first_image = image if first_image is None else first_image
        photo, shown = view.photos[0] / np.float32(255), view.shown
        if not complete:
            psnrs.append(psnr(image, photo, shown))
            continue
        qualities.append(Quality.of(image, photo, shown))
        psnrs.append(qualities[-1].psnr_db)
        of_covered.append(Quality.of(image, photo, covered[index] if shown is None else covered[index] & shown))
        if shown is not None:
            image, photo = image[shown][None], photo[shown][None]  # a row of pixels
        corrected.append(psnr(color_corrected(image, photo), photo))
    share = float(np.concatenate([mask.ravel() for mask in covered]).mean()) if len(covered) else None
    return Evaluation(tuple(psnrs), tuple(corrected), tuple(qualities), tuple(of_covered), share, first_image)


def rows_worth_keeping(
    gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, max_loss_db: float
) -> NDArray[np.int64]:
    """Rows in ascending order, without the Gaussians that contribute least.

    As many are left out as cost at most `max_loss_db` of PSNR on training photos. Held-out photos are not used, so that
    they remain a fair measure.
    """
    kept = np.arange(len(gaussians))
    if max_loss_db <= 0 or not views or len(gaussians) == 0:
        return kept
    # All photos count: a Gaussian that only some of them show would otherwise seem to contribute nothing
    level = 0 if len(views) <= FEW_VIEWS else 1
    order = np.argsort(contributions(gaussians, views, rasterizer, level), kind="stable")
    judged = evenly_chosen(views, JUDGED_VIEWS)
    enough = evaluate(gaussians, judged, rasterizer).mean_psnr_db - max_loss_db
    low, high = 0.0, MOST_PRUNED
    for _ in range(PRUNE_HALVINGS):
        share = (low + high) / 2
        candidate = np.sort(order[int(share * len(order)) :])
        if evaluate(gaussians.take(candidate), judged, rasterizer).mean_psnr_db >= enough:
            kept, low = candidate, share
        else:
            high = share
    return kept


def contributions(gaussians: Gaussians, views: Sequence[View], rasterizer: Rasterizer, level: int = 0) -> Float:
    """The contribution of each Gaussian [N], in px: the sum over views and pixels of its share of the pixel.

    Pixels are those of photos that are halved `level` times, without the pixels that show no place.

    A pixel is a sum of colours times shares, so the derivative of the picture's sum with respect to a colour is the sum
    of shares. All colours are set to mid-grey, so that none is clamped at black.
    """
    plain = replace(gaussians, sh0=np.zeros_like(gaussians.sh0), shN=gaussians.shN[:, :0])
    total = np.zeros(len(gaussians))
    for view in views:
        counted = np.ones_like(rasterizer.forward(plain, view.cameras[level]))
        if (hidden := view.hidden_at(level)) is not None:
            counted[hidden] = 0
        total += rasterizer.backward(counted).sh0[:, 0, 0] / SH_C0
    return total


def finished_gaussians(gaussians: Gaussians) -> Gaussians:
    """The Gaussians to write to the file: all that can be seen, with unit quaternions.

    Gaussians with an opacity below MIN_ALPHA are never drawn, so leaving them out changes no picture. Raises
    TrainingDivergedError when a parameter is not finite.
    """
    for name, array in vars(gaussians).items():
        broken = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
        if broken:
            raise TrainingDivergedError(
                f"{broken} of {len(gaussians)} Gaussians have {name} that are not finite; "
                "try again with another train.random_seed."
            )
    kept = gaussians.take(is_drawn(gaussians))
    unit = kept.quats / np.linalg.norm(kept.quats, axis=1, keepdims=True)
    return Gaussians(**{**vars(kept), "quats": unit.astype(np.float32)})


def is_drawn(gaussians: Gaussians) -> NDArray[np.bool_]:
    """Which Gaussians [N] are opaque enough to be drawn somewhere."""
    return np.asarray(gaussians.raw_opacities >= np.log(MIN_ALPHA / (1 - MIN_ALPHA)))
